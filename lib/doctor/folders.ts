import { existsSync } from "node:fs";
import { mkdtemp, rm, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { outputError } from "../data/file-error.js";
import { type Finding, problem } from "./finding.js";

export interface FolderCheck {
  check: string;
  folder: string;
  /** Free bytes that it should have. */
  needed: number;
  /** What it is for, such as "libtorch takes 1.7 GB while it is unpacked". */
  reason: string;
  /** The variable that names another folder. */
  variable?: string;
}

/** Whether a folder, or the nearest above it that exists, takes a new folder, and how much is free there. */
export async function folderFinding({
  check,
  folder,
  needed,
  reason,
  variable,
}: FolderCheck): Promise<Finding> {
  const nearest = nearestExisting(resolve(folder));
  const elsewhere = variable === undefined ? "Work in another folder." : `export ${variable}=/another/folder`;
  try {
    await rm(await mkdtemp(join(nearest, ".peft-train-doctor-")), { recursive: true });
  } catch (error) {
    return {
      ...problem(check, outputError(folder, error).message, elsewhere),
      details: { folder, writable: false },
    };
  }
  const { bavail, bsize } = await statfs(nearest);
  const free = bavail * bsize;
  const found = `${folder}: writable, ${(free / 1e9).toFixed(1)} GB free`;
  const details = { folder, writable: true, freeBytes: free };
  if (free >= needed) return { check, status: "ok", found, details };
  const next = variable === undefined ? "Make room on this disk." : `Make room, or: ${elsewhere}`;
  return { ...problem(check, `${found}; ${reason}`, next), details };
}

function nearestExisting(folder: string): string {
  for (let at = folder; ; at = dirname(at)) if (existsSync(at) || at === dirname(at)) return at;
}
