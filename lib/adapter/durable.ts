import { open } from "node:fs/promises";
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

/** Waits until the names in a folder are on the disk: what makes a rename survive a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  try {
    await using handle = await open(folder, "r");
    await handle.sync();
  } catch {
    // Some file systems (and Windows) do not sync folders; the rename itself stands.
  }
}
