import type { Dirent } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

export interface InstallBytes {
  downloaded: number;
  unpacked: number;
}

const INTERVAL_MS = 500;

/**
 * Reports, twice a second, how far pip has come, by the bytes in the folders it works in: pip itself tells programs
 * only from version 24.1 on. Returns what ends it.
 *
 * @param report gets bytes that never fall, though pip removes a wheel once it is unpacked.
 */
export function watchBytes(folder: string, report: (bytes: InstallBytes) => void): () => void {
  const most: InstallBytes = { downloaded: 0, unpacked: 0 };
  let busy = false;
  let stopped = false;
  const timer = setInterval(async () => {
    if (busy) return;
    busy = true;
    const now = await measure(folder);
    busy = false;
    if (stopped) return;
    most.downloaded = Math.max(most.downloaded, now.downloaded);
    most.unpacked = Math.max(most.unpacked, now.unpacked);
    report({ ...most });
  }, INTERVAL_MS);
  return () => {
    stopped = true; // a measurement may be under way
    clearInterval(timer);
  };
}

async function measure(folder: string): Promise<InstallBytes> {
  const bytes: InstallBytes = { downloaded: 0, unpacked: 0 };
  const entries: Dirent[] = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const found = await stat(join(entry.parentPath, entry.name)).catch(() => undefined); // pip has moved it
    if (entry.name.endsWith(".whl")) bytes.downloaded += found?.size ?? 0;
    else bytes.unpacked += found?.size ?? 0;
  }
  return bytes;
}
