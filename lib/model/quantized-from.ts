import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { isObject, type JsonObject, readJsonObject } from "./json-file.js";

/** Written beside weights that `peft-train quantize` made: which weights they came from. */
export const ORIGIN_FILE = "peft_train_quantized.json";

/** What `peft-train quantize` says of a file that it wrote. Hashes are SHA-256 in hexadecimal. */
export interface Origin {
  /** Folder of the source as the user gave it. */
  sourceModel: string;
  sourceWeights: string;
  /** Of the quantised file itself: without the same bytes the record says nothing. */
  weights: string;
}

export function formatOrigin(origin: Origin, report: object): string {
  const fields = {
    format: 1,
    source_model: origin.sourceModel,
    source_weights_sha256: origin.sourceWeights,
    weights_sha256: origin.weights,
    ...report,
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}

/**
 * Hash of the weights that those of a folder were quantised from; undefined where nothing says so of these very bytes.
 * @param weights Hash of the folder's model.safetensors.
 */
export async function sourceWeights(folder: string, weights: string): Promise<string | undefined> {
  const record = await recordOf(folder, weights).catch((cause) => {
    if (!(cause instanceof PeftTrainError)) throw cause;
    throw new PeftTrainError(cause.code, cause.message, {
      hint: "Quantise the model again; or delete that file, and only adapters trained on these very weights are taken.",
      cause,
    });
  });
  const source = record?.source_weights_sha256;
  return typeof source === "string" && /^[0-9a-f]{64}$/.test(source) ? source : undefined;
}

/**
 * The part of the weights that was to stay in float16 when a folder was quantised, which the file holds rounded down;
 * undefined where no record says so of these very bytes, or it is damaged: weights are read without it.
 * @param weights Hash of the folder's model.safetensors.
 */
export async function askedOutlierFraction(folder: string, weights: string): Promise<number | undefined> {
  const record = await recordOf(folder, weights).catch((error) => {
    if (!(error instanceof PeftTrainError)) throw error;
    return undefined;
  });
  const asked = isObject(record?.held_as) ? record.held_as.outlier_fraction : undefined;
  return typeof asked === "number" && asked >= 0 && asked <= 0.1 ? asked : undefined;
}

/** The record beside weights with this hash; undefined where there is none, or one of other weights. */
async function recordOf(folder: string, weights: string): Promise<JsonObject | undefined> {
  const json = await readJsonObject(path.join(folder, ORIGIN_FILE));
  return json?.format === 1 && json.weights_sha256 === weights ? json : undefined;
}
