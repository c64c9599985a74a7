import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";

/** Compiles a few lines of C into a shared library, with the compiler that builds the addon. */
export function buildLibrary(file: string, source: string, flags: readonly string[] = []): string {
  mkdirSync(dirname(file), { recursive: true });
  const args = ["-shared", "-fPIC", "-x", "c", "-o", file, "-", "-x", "none", ...flags];
  const { status, stderr, error } = spawnSync("cc", args, { input: source, encoding: "utf8" });
  if (status !== 0) throw new Error(`cc ${args.join(" ")}: ${error?.message ?? stderr}`);
  return file;
}

export interface FakeDriver {
  /** As cuDriverGetVersion gives it: 13000 for 13.0. */
  version: number;
  /** Compute capabilities, such as "8.9". */
  devices?: readonly string[];
  /** What cuInit does: a result of CUDA, or C statements. */
  init?: string;
}

/** A libcuda.so.1 in `folder`, for LD_LIBRARY_PATH. */
export function makeFakeDriver(
  folder: string,
  { version, devices = [], init = "return 0;" }: FakeDriver,
): void {
  const capability = (part: 0 | 1): string => devices.map((each) => each.split(".")[part]).join(",") || "0";
  buildLibrary(
    `${folder}/libcuda.so.1`,
    `#include <stdlib.h>
     #include <string.h>
     #include <unistd.h>
     static const int major[] = {${capability(0)}}, minor[] = {${capability(1)}};
     int cuInit(unsigned flags) { ${init} }
     int cuDriverGetVersion(int *version) { *version = ${version}; return 0; }
     int cuDeviceGetCount(int *count) { *count = ${devices.length}; return 0; }
     int cuDeviceGet(int *device, int i) { *device = i; return 0; }
     int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "NVIDIA Fake", length); return 0; }
     int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return 0; }
     int cuDeviceGetAttribute(int *value, int which, int device) {
       *value = which == 75 ? major[device] : minor[device];
       return 0;
     }`,
    ["-Wl,-soname,libcuda.so.1"],
  );
}
