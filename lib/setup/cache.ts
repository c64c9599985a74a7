import { homedir } from "node:os";
import { join, resolve } from "node:path";

export type Device = "cpu" | "cuda";

/** Where the package keeps what it fetches: PEFT_TRAIN_CACHE, else peft-train in XDG_CACHE_HOME or in ~/.cache. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.PEFT_TRAIN_CACHE) return resolve(env.PEFT_TRAIN_CACHE);
  // The XDG specification says to ignore a relative path.
  const base = env.XDG_CACHE_HOME?.startsWith("/") ? env.XDG_CACHE_HOME : join(homedir(), ".cache");
  return join(base, "peft-train");
}

/** The folder that holds torch/ and nvidia/ of one torch version for one device. */
export function libtorchFolder(cache: string, version: string, device: Device): string {
  return join(cache, `libtorch-${version}-${device}`);
}

/** Reads the name that `libtorchFolder` gave; undefined for any other. */
export function parseLibtorchFolder(name: string): { version: string; device: Device } | undefined {
  const match = /^libtorch-(\d+\.\d+\.\d+)-(cpu|cuda)$/.exec(name);
  if (match === null) return undefined;
  return { version: match[1] as string, device: match[2] as Device };
}
