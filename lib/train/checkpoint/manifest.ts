import { readdir } from "node:fs/promises";
import path from "node:path";
import { writeDurably } from "../../adapter/durable.js";
import { PeftTrainError } from "../../errors.js";
import { sha256 } from "../../model/fingerprint.js";
import { isObject, type JsonObject, readJsonObject } from "../../model/json-file.js";
import { VERSION } from "../../version.js";

/** Written last of a checkpoint's files: a folder without it, or that does not agree with it, is no checkpoint. */
export const MANIFEST_FILE = "manifest.json";
const FORMAT = 1;

/** Where a run stood: optimiser steps done, and epochs whose evaluation and save are done too. */
export interface Position {
  step: number;
  epochsEnded: number;
}

export interface Manifest extends Position {
  files: Record<string, { bytes: number; sha256: string }>;
}

/** Lists all files of `folder`, and of folders in it, with size and SHA-256. */
export async function writeManifest(folder: string, { step, epochsEnded }: Position): Promise<Manifest> {
  const files: Manifest["files"] = {};
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const names = entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
  for (const name of names.sort()) {
    const { hash, bytes } = await sha256(path.join(folder, name));
    files[name] = { bytes, sha256: hash };
  }
  const fields = { format: FORMAT, peft_train_version: VERSION, step, epochs_ended: epochsEnded, files };
  await writeDurably(path.join(folder, MANIFEST_FILE), `${JSON.stringify(fields, null, 2)}\n`);
  return { step, epochsEnded, files };
}

/** @throws CHECKPOINT_CORRUPT where there is none or it makes no sense; CHECKPOINT_MISMATCH for a newer format. */
export async function readManifest(folder: string): Promise<Manifest> {
  const file = path.join(folder, MANIFEST_FILE);
  const json = await readJsonObject(file, "CHECKPOINT_CORRUPT");
  if (json === undefined) throw damaged(folder, `it has no ${MANIFEST_FILE}`);
  if (Number.isInteger(json.format) && json.format !== FORMAT) {
    throw new PeftTrainError(
      "CHECKPOINT_MISMATCH",
      `${file}: expected format ${FORMAT}, found ${json.format}`,
      {
        hint: "It was written by another version of peft-train: go on with that one.",
      },
    );
  }
  const { step, epochs_ended: epochsEnded, files } = json;
  if (
    json.format !== FORMAT ||
    !isCount(step) ||
    !isCount(epochsEnded) ||
    !isObject(files) ||
    !areFiles(files)
  ) {
    throw damaged(folder, `its ${MANIFEST_FILE} is not one`);
  }
  return { step, epochsEnded, files: files as Manifest["files"] };
}

/** @throws CHECKPOINT_CORRUPT naming the first file that is not as the manifest says. */
export async function verifyFiles(folder: string, { files }: Manifest): Promise<void> {
  for (const [name, expected] of Object.entries(files)) {
    const found = await sha256(path.join(folder, name)).catch((cause: unknown) => {
      throw damaged(folder, cause instanceof PeftTrainError ? cause.message : String(cause));
    });
    if (found.bytes !== expected.bytes) {
      throw damaged(folder, `${name} has ${found.bytes} bytes, expected ${expected.bytes}`);
    }
    if (found.hash !== expected.sha256) {
      throw damaged(folder, `${name} has SHA-256 ${found.hash}, expected ${expected.sha256}`);
    }
  }
}

function damaged(folder: string, what: string): PeftTrainError {
  return new PeftTrainError("CHECKPOINT_CORRUPT", `${folder} is not a whole checkpoint: ${what}`, {
    hint: "Give another checkpoint of that run, or --resume_from_checkpoint=latest for the newest that is whole.",
  });
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** A manifest must not lead out of its folder. */
function areFiles(files: JsonObject): boolean {
  return Object.entries(files).every(
    ([name, file]) =>
      path.normalize(name) === name &&
      !path.isAbsolute(name) &&
      !name.startsWith("..") &&
      isObject(file) &&
      isCount(file.bytes) &&
      typeof file.sha256 === "string",
  );
}
