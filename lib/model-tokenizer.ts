import { Tokenizer } from "./data/tokenizer.js";
import { PeftTrainError } from "./errors.js";
import type { ModelFolder } from "./model/folder.js";

const DEFAULT_MAX_LENGTH = 128;

/** Loads a model's tokenizer. @throws MODEL_CORRUPT when it has ids that the embedding table has not. */
export async function loadTokenizer(model: ModelFolder): Promise<Tokenizer> {
  const tokenizer = await Tokenizer.load(model.path);
  if (tokenizer.vocabSize > model.shape.vocabSize) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${model.path}: tokenizer.json has ${tokenizer.vocabSize} tokens, the model's embedding table ${model.shape.vocabSize}`,
      { hint: "tokenizer.json and model.safetensors do not belong together." },
    );
  }
  return tokenizer;
}

/** Tokens of a text that is trained on, where nobody says otherwise. */
export function trainingMaxLength(model: ModelFolder): number {
  return Math.min(DEFAULT_MAX_LENGTH, model.shape.maxPositions);
}

/** Tokens of a text that is encoded, where neither an option nor an adapter says otherwise: as many as sentence-transformers takes. */
export function encodingMaxLength(model: ModelFolder): number {
  return model.sequenceLength ?? trainingMaxLength(model);
}

/** @throws USAGE when texts of `maxLength` tokens do not fit the model's table of positions. */
export function requireMaxLength(maxLength: number, model: ModelFolder): void {
  if (maxLength <= model.shape.maxPositions) return;
  throw new PeftTrainError(
    "USAGE",
    `--max_length=${maxLength}: ${model.name} has ${model.shape.maxPositions} positions`,
    { hint: `Give at most --max_length=${model.shape.maxPositions}.` },
  );
}
