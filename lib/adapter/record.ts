import { PeftTrainError } from "../errors.js";
import type { Fingerprint, Settings } from "../model/fingerprint.js";
import { isObject, type JsonObject, readJsonObject } from "../model/json-file.js";
import type { Pooling } from "../native/types.js";

/** peft_train.json: what an adapter needs beyond PEFT's own files to give the same embeddings again. */
export interface AdapterRecord {
  /** Version of peft-train that wrote it. */
  version: string;
  baseModel: string;
  base: Fingerprint;
  question1Prefix: string;
  question2Prefix: string;
  pooling: Pooling;
  normalize: boolean;
  /** Tokens of a text, [CLS] and [SEP] counted. */
  maxLength: number;
  /** Cosine from which a pair counts as the same, by accuracy on the evaluation set; null without one. */
  threshold: number | null;
  seed: number;
  /** Optimiser steps done, and whole epochs. */
  step: number;
  epoch: number;
  /** Options and figures of the run that wrote it: for people, never read back. */
  training: JsonObject;
}

export const RECORD_FILE = "peft_train.json";
const FORMAT = 1;

export function formatRecord(record: AdapterRecord): string {
  const fields = {
    format: FORMAT,
    peft_train_version: record.version,
    base_model: record.baseModel,
    base_weights_sha256: record.base.weights,
    base_source_weights_sha256: record.base.source,
    tokenizer_sha256: record.base.tokenizer,
    base_config: record.base.config,
    tokenizer_config: record.base.tokenizerConfig,
    question1_prefix: record.question1Prefix,
    question2_prefix: record.question2Prefix,
    pooling: record.pooling,
    normalize: record.normalize,
    max_length: record.maxLength,
    threshold: record.threshold,
    seed: record.seed,
    step: record.step,
    epoch: record.epoch,
    training: record.training,
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}

/**
 * Reads a peft_train.json; undefined where there is none, as in a folder that PEFT wrote.
 * @throws MODEL_CORRUPT, or ADAPTER_UNSUPPORTED for the file of a newer version.
 */
export async function readRecord(file: string): Promise<AdapterRecord | undefined> {
  const json = await readJsonObject(file);
  if (json === undefined) return undefined;
  if (json.format !== FORMAT) {
    throw new PeftTrainError(
      "ADAPTER_UNSUPPORTED",
      `${file}: expected format ${FORMAT}, found ${JSON.stringify(json.format ?? null)}`,
      { hint: "It was written by another version of peft-train: update this one." },
    );
  }
  const field = <T>(key: string, expected: string, ok: (value: unknown) => value is T): T => {
    const value = json[key];
    if (ok(value)) return value;
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected ${key} to be ${expected}, found ${JSON.stringify(value ?? null)}`,
    );
  };
  const text = (key: string): string => field(key, "a string", isString);
  const count = (key: string): number => field(key, "a whole number", isCount);
  const settings = (key: string): Settings | undefined =>
    field(key, "an object of numbers, true, false and null", isOptionalSettings);
  return {
    version: text("peft_train_version"),
    baseModel: text("base_model"),
    base: {
      weights: text("base_weights_sha256"),
      tokenizer: text("tokenizer_sha256"),
      source: field("base_source_weights_sha256", "a string", isOptionalString),
      config: settings("base_config"),
      tokenizerConfig: settings("tokenizer_config"),
    },
    question1Prefix: text("question1_prefix"),
    question2Prefix: text("question2_prefix"),
    pooling: field("pooling", '"mean" or "cls"', isPooling),
    normalize: field("normalize", "true or false", isBoolean),
    maxLength: count("max_length"),
    threshold: field("threshold", "a number or null", isThreshold),
    seed: count("seed"),
    step: count("step"),
    epoch: count("epoch"),
    training: {},
  };
}

/**
 * Weights and what was quantised from them are one base: an adapter trained on either runs on both.
 * @throws ADAPTER_MISMATCH when the adapter was trained on another base: its message names what differs.
 */
export function requireSameBase(
  record: AdapterRecord,
  found: Fingerprint,
  adapter: string,
  model: string,
): void {
  const { base } = record;
  for (const [what, verb, expected, those, actual] of [
    ["weights", "have", base.weights, "those of", found.weights],
    ["tokenizer", "has", base.tokenizer, "that of", found.tokenizer],
  ] as const) {
    if (expected === actual || (what === "weights" && sameOrigin(base, found))) continue;
    throw new PeftTrainError(
      "ADAPTER_MISMATCH",
      `${adapter} was trained on ${record.baseModel}, whose ${what} ${verb} SHA-256 ${expected}; ` +
        `${those} ${model} ${verb} ${actual}`,
      { hint: `Give the base model that it was trained on as --model_name_or_path (${record.baseModel}).` },
    );
  }
  for (const [file, expected, actual] of [
    ["config.json", base.config, found.config],
    ["tokenizer_config.json", base.tokenizerConfig, found.tokenizerConfig],
  ] as const) {
    const differences = settingsThatDiffer(expected ?? {}, actual ?? {});
    if (differences.length === 0) continue;
    throw new PeftTrainError(
      "ADAPTER_MISMATCH",
      `${adapter} was trained on ${record.baseModel} with another ${file} than ${model} has now: ${differences.join("; ")}`,
      { hint: `Set ${file} back, or give the base model that it was trained on as --model_name_or_path.` },
    );
  }
}

function sameOrigin(a: Fingerprint, b: Fingerprint): boolean {
  const known = [b.weights, b.source];
  return [a.weights, a.source].some((hash) => hash !== undefined && known.includes(hash));
}

/** Settings that only one side knows come from another version, and say nothing. */
function settingsThatDiffer(expected: Settings, found: Settings): string[] {
  return Object.keys(expected)
    .filter((name) => found[name] !== undefined && found[name] !== expected[name])
    .map((name) => `expected ${name} ${expected[name]}, found ${found[name]}`);
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isOptionalString(value: unknown): value is string | undefined {
  return value === undefined || typeof value === "string";
}

function isBoolean(value: unknown): value is boolean {
  return typeof value === "boolean";
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isOptionalSettings(value: unknown): value is Settings | undefined {
  if (value === undefined) return true;
  const plain = (setting: unknown): boolean =>
    setting === null || typeof setting === "number" || typeof setting === "boolean";
  return isObject(value) && Object.values(value).every(plain);
}

function isPooling(value: unknown): value is Pooling {
  return value === "mean" || value === "cls";
}

function isThreshold(value: unknown): value is number | null {
  return value === null || (typeof value === "number" && Number.isFinite(value));
}
