import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../native/package-root.js";
import { runProbe } from "../native/probe.js";
import type { CudaDriver } from "../native/types.js";

export interface Gpu {
  /** Whether there is NVIDIA hardware, with a driver or without. */
  present: boolean;
  /** Of the kernel module, as "580.65.06". */
  driver?: string;
  /** The newest CUDA that the driver runs, as 13000 for 13.0. */
  cuda?: number;
  devices: NonNullable<CudaDriver["devices"]>;
  /** Why the devices cannot be used. */
  failure?: string;
}

const MAIN = join(PACKAGE_ROOT, "dist", "native", "driver-main.js");
const TIMEOUT_MS = 20_000;
const NVIDIA = "0x10de";
/** PCI class of a display controller: 0x0300 VGA, 0x0302 3D. */
const DISPLAY_CLASS = /^0x03/;

/**
 * Looks for an NVIDIA GPU and asks its driver, in a process of its own.
 *
 * @param root in place of / for /proc, /sys and /dev.
 */
export async function examineGpu(env: NodeJS.ProcessEnv, root = "/", timeoutMs = TIMEOUT_MS): Promise<Gpu> {
  const text = read(join(root, "proc/driver/nvidia/version"));
  const driver = /Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)/.exec(text)?.[1];
  const present = driver !== undefined || existsSync(join(root, "dev/nvidia0")) || isOnBus(root);
  const { value, failure } = await runProbe<CudaDriver>(MAIN, [], { env, timeoutMs });
  const unasked = failure?.code === "ADDON_MISSING"; // it is the addon that asks
  const why = unasked ? "the driver was not asked, as there is no addon" : `its library ${failure?.message}`;
  const reason = value?.error ?? (failure && why);
  return {
    // On WSL2 there is neither module nor device file, only the library.
    present: present || (value?.devices?.length ?? 0) > 0,
    ...(driver !== undefined && { driver }),
    ...(value?.version !== undefined && { cuda: value.version }),
    devices: value?.devices ?? [],
    ...(reason !== undefined && { failure: reason }),
  };
}

/** 13000 as "13.0". */
export function cudaVersion(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

function isOnBus(root: string): boolean {
  const bus = join(root, "sys/bus/pci/devices");
  try {
    return readdirSync(bus).some(
      (name) =>
        read(join(bus, name, "vendor")).trim() === NVIDIA &&
        DISPLAY_CLASS.test(read(join(bus, name, "class"))),
    );
  } catch {
    return false;
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
