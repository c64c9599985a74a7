import { rmSync } from "node:fs";
import { mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { outputError } from "../data/file-error.js";
import { makeFolder } from "../data/make-folder.js";
import { PeftTrainError } from "../errors.js";
import { locateLibtorch } from "../native/locate.js";
import { CUDA_LIBRARY, hasLibrary, readTorchVersion } from "../native/torch-folder.js";
import type { Device } from "./cache.js";
import { aborted, diskFull } from "./errors.js";
import { type FetchTree, fetchByHttps, fetchByPip, fetchFromFiles } from "./fetch-tree.js";
import { withLock } from "./lock.js";
import { watchBytes } from "./measure.js";
import { CUDA_BYTES, TORCH_BYTES } from "./pin.js";
import { type Plan, type PlanOptions, planInstall } from "./plan.js";
import { pruneForCpu } from "./prune.js";
import { PINNED_WHEELS, type PinnedWheel } from "./wheels.js";

/** How far fetching libtorch has come. */
export interface SetupProgress {
  /** "wait": another process is at it. "fetch": download and unpack. "prune": the unneeded is taken away. */
  phase: "wait" | "fetch" | "prune" | "done";
  /** Of torch, such as `2.13.0`. */
  version: string;
  /** Where from: "pip", the host of an index, a folder. */
  source: string;
  /** Where it will be. */
  folder: string;
  /** Downloaded and unpacked so far, and about how much it will be. */
  bytes: number;
  /** About how much it will be, in bytes. */
  totalBytes: number;
}

/** Which libtorch is fetched, where to, and who is told. */
export interface InstallOptions extends PlanOptions {
  /** "cpu" (default) fetches only what CPU work needs; "auto" takes a GPU where there is one. */
  device?: Device | "auto";
  /** Told how much is done, and of how much. */
  onProgress?: (progress: SetupProgress) => void;
  /** A word on how it is fetched, such as why a GPU is passed over. */
  onNote?: (message: string) => void;
  /** Default: SIGINT and SIGTERM stop it, while it runs. */
  signal?: AbortSignal;
  /** Fetch again what is there. */
  force?: boolean;
  /** In place of the pinned ones, for tests. */
  wheels?: readonly PinnedWheel[];
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
  const { forBuild = false } = options;
  const device = options.device === "cuda" ? "cuda" : "cpu"; // "auto" is content with what is there
  try {
    return locateLibtorch({ env, device, forBuild }).folder;
  } catch (error) {
    if (env.PEFT_TRAIN_LIBTORCH) throw error; // what the user named is not replaced by something else
  }
  return installLibtorch(options);
}

/**
 * Fetches libtorch into the cache, unless it is there: by pip where there is one, else by HTTPS, or from files. It appears
 * whole or not at all; a second process that wants the same waits for the first.
 *
 * @throws what `planInstall` throws; DOWNLOAD_FAILED, OUTPUT_UNWRITABLE, ABORTED
 */
export async function installLibtorch(options: InstallOptions = {}): Promise<string> {
  return carryOut(await planInstall(options), options);
}

/** Does what `planInstall` has planned. */
export async function carryOut(plan: Plan, options: InstallOptions = {}): Promise<string> {
  const { env = process.env, force = false, wheels } = options;
  const { version, device, cache, folder, way } = plan;
  for (const note of plan.notes) options.onNote?.(note);
  const bytes = device === "cuda" ? CUDA_BYTES : TORCH_BYTES;
  // pip unpacks all of a wheel; from files nothing is downloaded.
  const unpacked = way.kind === "pip" || device === "cuda" ? bytes.unpacked : TORCH_BYTES.kept;
  const totalBytes = (way.kind === "files" ? 0 : bytes.download) + unpacked;
  const source = sourceOf(plan);
  const report = (phase: SetupProgress["phase"], done: number): void =>
    options.onProgress?.({ phase, version, source, folder, bytes: Math.min(done, totalBytes), totalBytes });

  using interrupt = interruptSignal(options.signal);
  const { signal } = interrupt;
  const install = async (): Promise<string> => {
    if (!force && isComplete(folder, version, device)) return folder; // the process waited for has done it
    await removeLeftOvers(folder);
    await checkSpace(cache, totalBytes);
    await using temporary = await temporaryFolder(folder);
    const tree = join(temporary.path, "tree");
    const fetch: FetchTree = {
      ...{ tree, version, device, env, signal },
      wheels: wheels ?? PINNED_WHEELS[`${process.platform}-${process.arch}`] ?? [],
      onBytes: (now) => report("fetch", now),
    };
    report("fetch", 0);
    if (way.kind === "https") await fetchByHttps(fetch, join(cache, "downloads"), way.index);
    else if (way.kind === "files") await fetchFromFiles(fetch, way.mirror);
    else {
      const scratch = join(temporary.path, "scratch");
      await Promise.all([tree, scratch].map((each) => mkdir(each)));
      const stopWatching = watchBytes(temporary.path, (now) =>
        report("fetch", now.downloaded + now.unpacked),
      );
      await fetchByPip(fetch, scratch, way.index).finally(stopWatching);
      report("prune", totalBytes);
      if (device === "cpu") await pruneForCpu(tree);
    }
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

/** Where a plan takes libtorch from, in a word. */
export function sourceOf({ way }: Plan): string {
  if (way.kind === "files") return way.mirror.wheel ?? way.mirror.folder;
  return way.kind === "pip" ? "pip" : new URL(way.index).host;
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
