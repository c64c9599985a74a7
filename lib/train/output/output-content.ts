import { readdirSync } from "node:fs";
import { lstat, readdir, stat } from "node:fs/promises";
import {
  type AdapterContent,
  CHECKPOINT,
  CONFIG_FILE,
  EVENTS_FOLDER,
  LOG_FILE,
  REPORT_FILE,
  RUN_CONFIG_FILE,
  stageAdapter,
  TOKENIZER_FILES,
  WEIGHTS_FILE,
} from "../../adapter/folder.js";
import { RECORD_FILE } from "../../adapter/record.js";
import { outputError } from "../../data/file-error.js";
import { PeftTrainError } from "../../errors.js";
import { LOCK_INSIDE } from "./output-lock.js";
import {
  MODEL_CONFIG_FILE,
  MODEL_FILES,
  MODEL_WEIGHTS_FILE,
  type ModelContent,
  stageModel,
} from "./saved-model.js";

/** What a run writes: an adapter, or the whole model where that trains. */
export type SavedContent = AdapterContent | ModelContent;

const isModel = (content: SavedContent): content is ModelContent => "sentence" in content;

/** Writes the files into a folder that nobody reads yet; their names in the order in which they must become visible. */
export function stageContent(folder: string, content: SavedContent): Promise<string[]> {
  return isModel(content) ? stageModel(folder, content) : stageAdapter(folder, content);
}

/** Name of the weights in the folder. */
export function weightsFileOf(content: SavedContent): string {
  return isModel(content) ? MODEL_WEIGHTS_FILE : WEIGHTS_FILE;
}

/** The file without which a folder is neither adapter nor model: it goes first and comes last. */
export const CONFIG_FILES: readonly string[] = [CONFIG_FILE, MODEL_CONFIG_FILE];

/** Of an adapter or a model, in the order in which they must go. */
export const SAVED_FILES: readonly string[] = [
  ...new Set([
    ...CONFIG_FILES,
    WEIGHTS_FILE,
    ...MODEL_FILES,
    ...TOKENIZER_FILES,
    RUN_CONFIG_FILE,
    RECORD_FILE,
  ]),
];
const OUR_FILES = new Set([...SAVED_FILES, EVENTS_FOLDER, LOG_FILE, REPORT_FILE, LOCK_INSIDE]);

/**
 * Checks that a run may write to `folder`: it is not there, empty, or may be overwritten.
 * @param name The folder as the user gave it, for messages.
 * @returns Whether the folder is there.
 * @throws OUTPUT_EXISTS, OUTPUT_UNWRITABLE
 */
export async function requireFreeFolder(folder: string, name: string, overwrite: boolean): Promise<boolean> {
  let names: string[];
  try {
    if (!(await stat(folder)).isDirectory()) {
      throw new PeftTrainError(
        "OUTPUT_EXISTS",
        `--output_dir=${name} is a file; expected a folder or a new name`,
      );
    }
    names = await readdir(folder);
  } catch (cause) {
    if (cause instanceof PeftTrainError) throw cause;
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw outputError(folder, cause);
    // Otherwise the adapter could not be put there once it is trained.
    if (await lstat(folder).catch(() => undefined)) {
      throw new PeftTrainError(
        "OUTPUT_EXISTS",
        `--output_dir=${name} is a link to a folder that is not there; expected a folder or a new name`,
        { hint: "Make the folder that it leads to, or give another one." },
      );
    }
    return false;
  }
  const others = names.filter((entry) => !isOurs(entry));
  const earlier = wroteHere(names) && others.length === 0;
  if (names.every((entry) => entry === LOCK_INSIDE)) return true;
  if (overwrite) {
    refuseStrangersOfOurNames(names, name);
    return true;
  }
  if (earlier) {
    throw new PeftTrainError("OUTPUT_EXISTS", `--output_dir=${name} holds an earlier run`, {
      hint: "Give another folder, or add --overwrite_output_dir to replace that run.",
    });
  }
  const shown = others.length > 0 ? others : names;
  const list = shown.slice(0, 3).join(", ") + (shown.length > 3 ? ` and ${shown.length - 3} more` : "");
  throw new PeftTrainError("OUTPUT_EXISTS", `--output_dir=${name} is not empty: it holds ${list}`, {
    hint: "Give a new or an empty folder; --overwrite_output_dir would write among what is there.",
  });
}

/** A model's folder has a tokenizer.json too: only what a run wrote may be replaced. */
function refuseStrangersOfOurNames(names: readonly string[], folder: string): void {
  const taken = names.filter((entry) => isOurs(entry) && entry !== LOCK_INSIDE);
  if (wroteHere(names) || taken.length === 0) return;
  throw new PeftTrainError(
    "OUTPUT_EXISTS",
    `--output_dir=${folder} holds ${taken.slice(0, 3).join(", ")}, which no run wrote and this one would replace`,
    { hint: "Give a new or an empty folder." },
  );
}

/** Whether a folder holds what one of our runs wrote, and nothing else. */
export async function isEarlierRun(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch((): string[] => []);
  return wroteHere(names) && names.every(isOurs);
}

/**
 * What an earlier run has left in `folder` but its log, in the order in which it must go: its record last, which says that
 * the rest is a run's. Nothing in a folder that no run wrote to.
 */
export function earlierContent(folder: string): string[] {
  const names = readdirSync(folder);
  if (!wroteHere(names)) return [];
  const files = SAVED_FILES.filter((name) => name !== RECORD_FILE);
  const checkpoints = names.filter((name) => CHECKPOINT.test(name));
  return [...files, ...checkpoints, EVENTS_FOLDER, REPORT_FILE, RECORD_FILE];
}

/** A run that ended before its first epoch has left a log and perhaps checkpoints only. */
function wroteHere(names: readonly string[]): boolean {
  return names.includes(RECORD_FILE) || names.includes(LOG_FILE);
}

function isOurs(name: string): boolean {
  return OUR_FILES.has(name) || CHECKPOINT.test(name);
}
