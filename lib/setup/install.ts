import { rmSync } from "node:fs";
import { mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { outputError } from "../data/file-error.js";
import { makeFolder } from "../data/make-folder.js";
import { PeftTrainError } from "../errors.js";
import { engineTorchVersion, locateLibtorch } from "../native/locate.js";
import { CUDA_LIBRARY, hasLibrary, readTorchVersion } from "../native/torch-folder.js";
import { cacheFolder, type Device, libtorchFolder } from "./cache.js";
import { withLock } from "./lock.js";
import { watchBytes } from "./measure.js";
import { CUDA_BYTES, cudaRuntimeRequirements, PINNED_TORCH, TORCH_BYTES } from "./pin.js";
import { aborted, diskFull, pipInstall } from "./pip.js";
import { pruneForCpu } from "./prune.js";

export interface SetupProgress {
  /** "wait": another process is at it. "fetch": pip downloads and unpacks. "prune": the unneeded is taken away. */
  phase: "wait" | "fetch" | "prune" | "done";
  version: string;
  /** Where it will be. */
  folder: string;
  /** Downloaded and unpacked so far, and about how much it will be. */
  bytes: number;
  totalBytes: number;
}

export interface InstallOptions {
  /** "cpu" (default) fetches only what CPU work needs. */
  device?: Device;
  onProgress?: (progress: SetupProgress) => void;
  /** Default: SIGINT and SIGTERM stop it, while it runs. */
  signal?: AbortSignal;
  env?: NodeJS.ProcessEnv;
  /** Default: the package's cache folder. */
  cache?: string;
  /** Fetch again what is there. */
  force?: boolean;
  /** To compile against: the pinned version, whatever an older build asks for. */
  forBuild?: boolean;
}

/**
 * Finds libtorch where `locateLibtorch` looks, and fetches it into the cache where there is none.
 *
 * @returns the folder that holds torch/ (and nvidia/).
 * @throws PeftTrainError DOWNLOAD_FAILED, OUTPUT_UNWRITABLE, ABORTED; LIBTORCH_MISSING and LIBTORCH_INCOMPATIBLE for what
 * PEFT_TRAIN_LIBTORCH names
 */
export async function ensureLibtorch(options: InstallOptions = {}): Promise<string> {
  const env = options.env ?? process.env;
  const { device = "cpu", forBuild = false } = options;
  try {
    return locateLibtorch({ env, device, forBuild }).folder;
  } catch (error) {
    if (env.PEFT_TRAIN_LIBTORCH) throw error; // what the user named is not replaced by something else
  }
  return installLibtorch(options);
}

/**
 * Fetches libtorch by pip into the cache, unless it is there. It appears whole or not at all; a second process that
 * wants the same waits for the first.
 */
export async function installLibtorch(options: InstallOptions = {}): Promise<string> {
  const { device = "cpu", env = process.env, force = false } = options;
  const version = options.forBuild ? PINNED_TORCH : engineTorchVersion();
  const cache = options.cache ?? cacheFolder(env);
  const folder = libtorchFolder(cache, version, device);
  if (process.platform !== "linux") {
    throw new PeftTrainError("LIBTORCH_MISSING", `peft-train runs on Linux; this is ${process.platform}`);
  }
  const bytes = device === "cuda" ? CUDA_BYTES : TORCH_BYTES;
  const totalBytes = bytes.download + bytes.unpacked;
  const report = (phase: SetupProgress["phase"], done: number): void =>
    options.onProgress?.({ phase, version, folder, bytes: Math.min(done, totalBytes), totalBytes });

  using interrupt = interruptSignal(options.signal);
  const { signal } = interrupt;
  const install = async (): Promise<string> => {
    if (!force && isComplete(folder, version, device)) return folder; // the process waited for has done it
    await removeLeftOvers(folder);
    await checkSpace(cache, totalBytes);
    await using temporary = await temporaryFolder(folder);
    const tree = join(temporary.path, "tree");
    const scratch = join(temporary.path, "scratch");
    await Promise.all([tree, scratch].map((each) => mkdir(each)));
    report("fetch", 0);
    const stopWatching = watchBytes(temporary.path, (now) => report("fetch", now.downloaded + now.unpacked));
    try {
      await fetchTree({ tree, scratch, version, device, env, signal });
    } finally {
      stopWatching();
    }
    report("prune", totalBytes);
    if (device === "cpu") await pruneForCpu(tree);
    if (signal.aborted) throw aborted();
    await putInPlace(tree, folder, join(temporary.path, "replaced"));
    report("done", totalBytes);
    return folder;
  };
  try {
    await makeFolder(cache);
    return await withLock(`${folder}.lock`, signal, () => report("wait", 0), install);
  } catch (error) {
    if (signal.aborted) throw aborted();
    throw error instanceof PeftTrainError ? error : cacheError(cache, error);
  }
}

interface Fetch {
  tree: string;
  scratch: string;
  version: string;
  device: Device;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

async function fetchTree({ tree, scratch, version, device, env, signal }: Fetch): Promise<void> {
  const torch = join(tree, "torch");
  const shared = { target: tree, scratch, env, signal };
  await pipInstall({ ...shared, requirements: [`torch==${version}`], dependencies: device === "cuda" });
  const found = readTorchVersion(torch);
  if (!hasLibrary(torch) || found === undefined || (device === "cuda" && !hasLibrary(torch, CUDA_LIBRARY))) {
    throw new PeftTrainError(
      "DOWNLOAD_FAILED",
      `torch ${version} as pip installs it here has no libtorch for ${device}`,
      {
        hint: "Point PEFT_TRAIN_LIBTORCH at a torch/ or libtorch/ folder that you have.",
      },
    );
  }
  // Only the wheel itself knows which CUDA it was linked to; a CPU wheel to none.
  if (device === "cpu" && found.cuda !== undefined) {
    await pipInstall({ ...shared, requirements: cudaRuntimeRequirements(found.cuda), dependencies: false });
  }
}

function isComplete(folder: string, version: string, device: Device): boolean {
  const torch = join(folder, "torch");
  if (!hasLibrary(torch) || (device === "cuda" && !hasLibrary(torch, CUDA_LIBRARY))) return false;
  return readTorchVersion(torch)?.version === version;
}

async function temporaryFolder(folder: string): Promise<AsyncDisposable & { path: string }> {
  const path = join(dirname(folder), `.${basename(folder)}.${process.pid}.tmp`);
  await mkdir(path);
  const remove = (): void => rmSync(path, { recursive: true, force: true });
  process.once("exit", remove); // process.exit() runs no `finally`
  const dispose = async (): Promise<void> => {
    process.off("exit", remove);
    await rm(path, { recursive: true, force: true });
  };
  return { path, [Symbol.asyncDispose]: dispose };
}

/** A process that was killed outright leaves its temporary folder; whoever holds the lock next removes it. */
async function removeLeftOvers(folder: string): Promise<void> {
  const prefix = `.${basename(folder)}.`;
  for (const name of await readdir(dirname(folder))) {
    if (!name.startsWith(prefix) || !name.endsWith(".tmp")) continue;
    await rm(join(dirname(folder), name), { recursive: true, force: true });
  }
}

async function putInPlace(tree: string, folder: string, replaced: string): Promise<void> {
  await rename(folder, replaced).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  await rename(tree, folder);
}

async function checkSpace(cache: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(cache);
  if (bavail * bsize >= needed) return;
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
  throw diskFull(
    cache,
    `it takes ${gigabytes(needed)} while it is unpacked, ${gigabytes(bavail * bsize)} are free`,
  );
}

function cacheError(cache: string, cause: unknown): PeftTrainError {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === "ENOSPC" || code === "EDQUOT") return diskFull(cache, code, cause);
  if (code === undefined) return new PeftTrainError("INTERNAL", `Setting up ${cache}: ${cause}`, { cause });
  return new PeftTrainError("OUTPUT_UNWRITABLE", `The cache folder: ${outputError(cache, cause).message}`, {
    cause,
    hint: "Set PEFT_TRAIN_CACHE to a folder that you can write.",
  });
}

function interruptSignal(given: AbortSignal | undefined): Disposable & { signal: AbortSignal } {
  if (given !== undefined) return { signal: given, [Symbol.dispose]: () => {} };
  const controller = new AbortController();
  const interrupt = (): void => controller.abort();
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  const dispose = (): void => void process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
  return { signal: controller.signal, [Symbol.dispose]: dispose };
}
