import { readFile } from "node:fs/promises";
import path from "node:path";
import { syncFolder, writeDurably } from "../../adapter/durable.js";
import { TOKENIZER_FILES, WEIGHTS_FILE } from "../../adapter/folder.js";
import { type AdapterRecord, formatRecord, RECORD_FILE } from "../../adapter/record.js";
import { fileError } from "../../data/file-error.js";
import type { ModelFolder } from "../../model/folder.js";
import { type SentenceSettings, writeSentenceModules } from "./sentence-modules.js";

export const MODEL_CONFIG_FILE = "config.json";
export const MODEL_WEIGHTS_FILE = "model.safetensors";
/** Where a run keeps its weights, with `--use_peft` and without. */
export const weightsFileFor = (usePeft: boolean): string => (usePeft ? WEIGHTS_FILE : MODEL_WEIGHTS_FILE);

const COPIED = [...TOKENIZER_FILES, "added_tokens.json"];

/** What makes a sentence-transformers folder of a model's. */
const SENTENCE_FILES = [
  "1_Pooling",
  "2_Normalize",
  "config_sentence_transformers.json",
  "modules.json",
  "sentence_bert_config.json",
];

/** In the order in which they must go: without config.json the others are no model to anybody. */
export const MODEL_FILES: readonly string[] = [
  MODEL_CONFIG_FILE,
  MODEL_WEIGHTS_FILE,
  ...COPIED,
  ...SENTENCE_FILES,
];

export interface ModelContent {
  /** Writes model.safetensors, in float32, to a path and syncs it. */
  saveWeights: (file: string) => Promise<void>;
  sentence: SentenceSettings;
  record: AdapterRecord;
  /** What the run began with: its configuration and tokenizer are the saved model's. */
  model: ModelFolder;
}

/**
 * Writes the files of a whole model into a folder that nobody reads yet, each synced: one that transformers, sentence-transformers
 * and this package load.
 * @returns Names, of files and of folders, in the order in which they must become visible: config.json last.
 */
export async function stageModel(folder: string, content: ModelContent): Promise<string[]> {
  const { model } = content;
  const names: string[] = [];
  for (const name of COPIED) {
    const bytes = await read(path.join(model.path, name), name !== "tokenizer.json");
    if (bytes === undefined) continue;
    await writeDurably(path.join(folder, name), bytes);
    names.push(name);
  }
  await writeSentenceModules(folder, content.sentence);
  await content.saveWeights(path.join(folder, MODEL_WEIGHTS_FILE));
  await writeDurably(path.join(folder, RECORD_FILE), formatRecord(content.record));
  await writeDurably(path.join(folder, MODEL_CONFIG_FILE), await modelConfig(model));
  syncFolder(path.join(folder, "1_Pooling"));
  return [...names, ...SENTENCE_FILES, MODEL_WEIGHTS_FILE, RECORD_FILE, MODEL_CONFIG_FILE];
}

/** Text of the model's config.json, which says that the weights are float32 as they are saved. */
async function modelConfig(model: ModelFolder): Promise<string> {
  const bytes = await read(path.join(model.path, MODEL_CONFIG_FILE), false);
  const config = JSON.parse(
    Buffer.from(bytes as Uint8Array)
      .toString("utf8")
      .replace(/^\uFEFF/, ""),
  );
  for (const key of ["dtype", "torch_dtype"]) if (key in config) config[key] = "float32";
  return `${JSON.stringify(config, null, 2)}\n`;
}

async function read(file: string, mayLack: boolean): Promise<Uint8Array | undefined> {
  try {
    return await readFile(file);
  } catch (cause) {
    if (mayLack && (cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw fileError(file, cause);
  }
}
