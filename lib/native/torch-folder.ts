import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The library the engine is linked to; a folder without it is no libtorch. */
export const CPU_LIBRARY = libraryFile("torch_cpu");
export const CUDA_LIBRARY = libraryFile("torch_cuda");

export interface TorchVersion {
  /** As "2.13.0", without the local part ("+cu130"). */
  version: string;
  /** The CUDA version of the wheel, as "13.0"; undefined for a CPU wheel and where nothing says. */
  cuda: string | undefined;
}

/** What a shared library is called on this platform. */
export function libraryFile(name: string, platform: NodeJS.Platform = process.platform): string {
  if (platform === "win32") return `${name}.dll`;
  return `lib${name}.${platform === "darwin" ? "dylib" : "so"}`;
}

/** Whether `torch` (a wheel's torch/ or an unpacked libtorch/) holds the library of the device. */
export function hasLibrary(torch: string, library: string = CPU_LIBRARY): boolean {
  return existsSync(join(torch, "lib", library));
}

/**
 * The version of a torch/ or libtorch/ folder, read from the wheel's version.py or the archive's build-version without
 * running anything; undefined where neither is there.
 */
export function readTorchVersion(torch: string): TorchVersion | undefined {
  const source = read(join(torch, "version.py"));
  if (source !== undefined) {
    const version = /^__version__\s*=\s*['"](\d+\.\d+\.\d+)/m.exec(source)?.[1];
    const cuda = /^cuda\b[^=\n]*=\s*['"](\d+\.\d+)/m.exec(source)?.[1];
    if (version !== undefined) return { version, cuda };
  }
  const version = /^\s*(\d+\.\d+\.\d+)/.exec(read(join(torch, "build-version")) ?? "")?.[1];
  return version === undefined ? undefined : { version, cuda: undefined };
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
