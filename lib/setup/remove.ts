import type { Dirent } from "node:fs";
import { lstat, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { outputError } from "../data/file-error.js";
import { parseLibtorchFolder } from "./cache.js";
import { withLock } from "./lock.js";

export interface Removable {
  path: string;
  bytes: number;
}

/** What set-up has put into a cache folder: every libtorch, and downloads that were not finished. */
export async function findRemovable(cache: string): Promise<Removable[]> {
  const names = await readdir(cache).catch(() => []);
  const ours = names.filter((name) => parseLibtorchFolder(name) !== undefined || name === "downloads").sort();
  return Promise.all(
    ours.map(async (name) => ({ path: join(cache, name), bytes: await bytesOf(join(cache, name)) })),
  );
}

/**
 * Removes one of them; waits for a set-up that is filling it.
 * @throws OUTPUT_UNWRITABLE
 */
export async function removeOne({ path }: Removable, signal: AbortSignal): Promise<void> {
  const going = `${path}.${process.pid}.removed`;
  try {
    await withLock(
      `${path}.lock`,
      signal,
      () => {},
      async () => {
        await rename(path, going); // whoever looks for libtorch finds it whole or not at all
        await rm(going, { recursive: true, force: true });
      },
    );
  } catch (cause) {
    throw outputError(path, cause);
  }
}

async function bytesOf(folder: string): Promise<number> {
  const entries: Dirent[] = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  let bytes = 0;
  for (const entry of entries) {
    if (entry.isFile()) bytes += (await lstat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}
