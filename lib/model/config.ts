import { PeftTrainError } from "../errors.js";
import type { ModelShape } from "../native/types.js";
import type { JsonObject } from "./json-file.js";

export const SUPPORTED_MODELS =
  'Supported are BERT encoders ("model_type": "bert") with absolute positions and erf GELU, such as ' +
  "intfloat/e5-small-v2, e5-base-v2, e5-large-v2, thenlper/gte-small, gte-base, gte-large and " +
  "sentence-transformers/all-MiniLM-L6-v2.";

/**
 * Sizes and dropout rates of a BertModel from its config.json; absent keys take BertConfig's defaults.
 * @param file Path of the config.json, for messages.
 * @throws MODEL_UNSUPPORTED for another architecture or variant, MODEL_CORRUPT for values that contradict each other.
 */
export function parseModelConfig(config: JsonObject, file: string): ModelShape {
  requireBert(config, file);
  const read = (key: string, fallback: number): number => size(config, key, fallback, file);
  const shape: ModelShape = {
    vocabSize: read("vocab_size", 30522),
    hiddenSize: read("hidden_size", 768),
    numLayers: read("num_hidden_layers", 12),
    numHeads: read("num_attention_heads", 12),
    intermediateSize: read("intermediate_size", 3072),
    maxPositions: read("max_position_embeddings", 512),
    typeVocabSize: read("type_vocab_size", 2),
    layerNormEps: epsilon(config, file),
    hiddenDropout: rate(config, "hidden_dropout_prob", file),
    attentionDropout: rate(config, "attention_probs_dropout_prob", file),
  };
  if (shape.hiddenSize % shape.numHeads !== 0) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: hidden_size ${shape.hiddenSize} is not a multiple of num_attention_heads ${shape.numHeads}`,
    );
  }
  return shape;
}

function requireBert(config: JsonObject, file: string): void {
  if (config.model_type !== "bert") {
    const found = config.model_type === undefined ? "no model_type" : `"${String(config.model_type)}"`;
    throw new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `${file}: expected a model_type of "bert", found ${found}`,
      {
        hint: SUPPORTED_MODELS,
      },
    );
  }
  const variants: [key: string, supported: unknown[], fallback: unknown][] = [
    ["position_embedding_type", ["absolute"], "absolute"],
    ["hidden_act", ["gelu", "gelu_python"], "gelu"],
    ["is_decoder", [false], false],
    ["add_cross_attention", [false], false],
  ];
  for (const [key, supported, fallback] of variants) {
    const value = config[key] ?? fallback;
    if (!supported.includes(value)) {
      throw new PeftTrainError(
        "MODEL_UNSUPPORTED",
        `${file}: expected ${key} to be ${JSON.stringify(supported[0])}, found ${JSON.stringify(value)}`,
        { hint: SUPPORTED_MODELS },
      );
    }
  }
}

/** Far above any real model, far below where a product of two sizes loses digits. */
const LARGEST_SIZE = 1 << 24;

function size(config: JsonObject, key: string, fallback: number, file: string): number {
  const value = config[key] ?? fallback;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > LARGEST_SIZE) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected ${key} to be a whole number from 1 to ${LARGEST_SIZE}, found ${JSON.stringify(value)}`,
    );
  }
  return value;
}

function epsilon(config: JsonObject, file: string): number {
  const value = config.layer_norm_eps ?? 1e-12;
  if (typeof value !== "number" || !(value > 0 && value < 1)) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected layer_norm_eps between 0 and 1, found ${JSON.stringify(value)}`,
    );
  }
  return value;
}

function rate(config: JsonObject, key: string, file: string): number {
  const value = config[key] ?? 0.1;
  if (typeof value !== "number" || !(value >= 0 && value < 1)) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected ${key} to be at least 0 and below 1, found ${JSON.stringify(value)}`,
    );
  }
  return value;
}
