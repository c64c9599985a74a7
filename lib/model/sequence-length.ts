import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { readJson, readJsonObject } from "./json-file.js";

/** [CLS], one token and [SEP]. */
const LEAST = 3;

/**
 * Tokens that sentence-transformers cuts texts of a model at: max_seq_length of sentence_bert_config.json; in its place version 6 writes
 * model_max_length of tokenizer_config.json, which counts beside a modules.json. Never more than there are positions. Undefined for a
 * folder that is not one of sentence-transformers.
 * @param root Folder of modules.json, where there is one.
 * @param folder Folder of the Transformer module, which may lie below.
 * @throws MODEL_CORRUPT for a length that is none.
 */
export async function readSequenceLength(
  root: string,
  folder: string,
  maxPositions: number,
): Promise<number | undefined> {
  const said = await lengthIn(path.join(folder, "sentence_bert_config.json"), "max_seq_length");
  if (said !== undefined) return Math.min(said, maxPositions);
  if ((await readJson(path.join(root, "modules.json"))) === undefined) return undefined;
  const ofTokenizer = await lengthIn(path.join(folder, "tokenizer_config.json"), "model_max_length");
  return Math.min(ofTokenizer ?? maxPositions, maxPositions);
}

async function lengthIn(file: string, key: string): Promise<number | undefined> {
  const value = (await readJsonObject(file))?.[key] ?? undefined;
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isInteger(value) && value >= LEAST) return value;
  throw new PeftTrainError(
    "MODEL_CORRUPT",
    `${file}: expected ${key} to be a whole number of at least ${LEAST}, found ${JSON.stringify(value)}`,
  );
}
