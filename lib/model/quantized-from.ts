import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { isObject, readJsonObject } from "./json-file.js";

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
  const file = path.join(folder, ORIGIN_FILE);
  const json = await readJsonObject(file).catch((cause) => {
    if (!(cause instanceof PeftTrainError)) throw cause;
    throw new PeftTrainError(cause.code, cause.message, {
      hint: "Quantise the model again; or delete that file, and only adapters trained on these very weights are taken.",
      cause,
    });
  });
  if (!isObject(json) || json.format !== 1 || json.weights_sha256 !== weights) return undefined;
  const source = json.source_weights_sha256;
  return typeof source === "string" && /^[0-9a-f]{64}$/.test(source) ? source : undefined;
}
