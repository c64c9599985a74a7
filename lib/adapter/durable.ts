import { closeSync, fsyncSync, openSync } from "node:fs";
import { copyFile, open } from "node:fs/promises";
import { outputError } from "../data/file-error.js";

/** Writes a file and waits until it is on the disk. */
export async function writeDurably(file: string, content: string | Uint8Array): Promise<void> {
  try {
    await using handle = await open(file, "w");
    await handle.writeFile(content);
    await handle.sync();
  } catch (cause) {
    throw outputError(file, cause);
  }
}

/** Copies a file and waits until the copy is on the disk. */
export async function copyDurably(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to);
    await using handle = await open(to, "r+");
    await handle.sync();
  } catch (cause) {
    throw outputError(to, cause);
  }
}

/** Waits until the names in a folder are on the disk: what makes a rename survive a power cut. */
export function syncFolder(folder: string): void {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(folder, "r");
    fsyncSync(descriptor);
  } catch {
    // Some file systems (and Windows) do not sync folders; the rename itself stands.
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}
