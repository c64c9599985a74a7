import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { CHECKPOINT, LOG_FILE } from "../../adapter/folder.js";
import { fileError } from "../../data/file-error.js";
import { PeftTrainError } from "../../errors.js";
import { MANIFEST_FILE, type Manifest, readManifest, verifyFiles } from "./manifest.js";

/** A checkpoint whose files are as its manifest says. */
export interface FoundCheckpoint {
  /** Absolute. */
  folder: string;
  manifest: Manifest;
}

export interface ResumeSource {
  /** Undefined: `latest` was asked for and there is none, so the run starts from the beginning. */
  checkpoint: FoundCheckpoint | undefined;
  /** Whether the run goes on in the folder that the checkpoint is in. */
  inPlace: boolean;
  /** Whether `latest` found what a run left that was killed before its first checkpoint: it may be replaced. */
  mayReplace: boolean;
  warnings: string[];
}

/**
 * Finds what `--resume_from_checkpoint` names.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, CHECKPOINT_CORRUPT, CHECKPOINT_MISMATCH
 */
export async function findCheckpoint(
  asked: string,
  outputDir: string,
  overwrite: boolean,
): Promise<ResumeSource> {
  if (asked === "latest") return findLatest(outputDir, overwrite);
  await requireFolder(asked);
  await refuseRunFolder(asked);
  const folder = path.resolve(asked);
  const manifest = await readManifest(asked);
  await verifyFiles(asked, manifest);
  const inPlace = path.dirname(folder) === path.resolve(outputDir);
  return { checkpoint: { folder, manifest }, inPlace, mayReplace: false, warnings: [] };
}

/** The newest checkpoint in a run's output folder that is whole. */
async function findLatest(outputDir: string, overwrite: boolean): Promise<ResumeSource> {
  const names = await readdir(outputDir).catch((cause: NodeJS.ErrnoException): string[] => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return [];
    throw fileError(outputDir, cause);
  });
  const damaged: string[] = [];
  const candidates: FoundCheckpoint[] = [];
  const skip = (error: unknown): void => {
    if (!(error instanceof PeftTrainError) || error.code !== "CHECKPOINT_CORRUPT") throw error;
    damaged.push(error.message);
  };
  for (const name of names.filter((entry) => CHECKPOINT.test(entry))) {
    const folder = path.resolve(outputDir, name);
    await readManifest(folder).then((manifest) => candidates.push({ folder, manifest }), skip);
  }
  candidates.sort(({ manifest: a }, { manifest: b }) => b.step - a.step || b.epochsEnded - a.epochsEnded);
  for (const checkpoint of candidates) {
    const whole = await verifyFiles(checkpoint.folder, checkpoint.manifest).then(() => true, skip);
    if (whole) return { checkpoint, inPlace: true, mayReplace: false, warnings: damaged.map(skipped) };
  }
  if (damaged.length > 0 && !overwrite) {
    throw new PeftTrainError(
      "CHECKPOINT_CORRUPT",
      `no checkpoint in ${outputDir} is whole: ${damaged.join("; ")}`,
      { hint: "Add --overwrite_output_dir to start from the beginning and replace them." },
    );
  }
  const mayReplace = names.includes(LOG_FILE) && !(await hasFinished(path.join(outputDir, LOG_FILE)));
  const message = `--resume_from_checkpoint=latest: no checkpoint in ${outputDir} yet; starting from the beginning`;
  return { checkpoint: undefined, inPlace: false, mayReplace, warnings: [...damaged.map(skipped), message] };
}

/** The output folder of a run is easily given for one of the checkpoints in it. */
async function refuseRunFolder(asked: string): Promise<void> {
  const names = await readdir(asked).catch((cause: unknown) => {
    throw fileError(asked, cause);
  });
  const last = names
    .filter((name) => CHECKPOINT.test(name))
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
    .at(-1);
  if (names.includes(MANIFEST_FILE) || last === undefined) return;
  throw new PeftTrainError(
    "USAGE",
    `--resume_from_checkpoint=${asked}: expected a checkpoint, found the folder of a run`,
    { hint: `Give ${path.join(asked, last)}, or latest with --output_dir=${asked}.` },
  );
}

function skipped(message: string): string {
  return `skipped: ${message}`;
}

async function hasFinished(log: string): Promise<boolean> {
  const text = await readFile(log, "utf8").catch((cause: unknown) => {
    throw fileError(log, cause);
  });
  return text.trimEnd().split("\n").at(-1)?.startsWith('{"event":"finished"') === true;
}

async function requireFolder(asked: string): Promise<void> {
  const hint = "Give a checkpoint's folder, such as out/step_500, or latest.";
  let isFolder: boolean;
  try {
    isFolder = (await stat(asked)).isDirectory();
  } catch (cause) {
    const { code, message } = fileError(asked, cause);
    throw new PeftTrainError(code, `--resume_from_checkpoint=${asked}: ${message}`, { hint, cause });
  }
  if (!isFolder) {
    throw new PeftTrainError("FILE_UNREADABLE", `--resume_from_checkpoint=${asked} is a file, not a folder`, {
      hint,
    });
  }
}
