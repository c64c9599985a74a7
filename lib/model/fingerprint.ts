import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import path from "node:path";
import { fileError } from "../data/file-error.js";
import { readTokenizerFiles } from "../data/tokenizer-files.js";
import type { ModelFolder } from "./folder.js";
import { sourceWeights } from "./quantized-from.js";

/** Settings of a file by their names there. */
export type Settings = Readonly<Record<string, number | boolean | null>>;

/** What an adapter belongs to: everything in a model folder that decides what an embedding is. */
export interface Fingerprint {
  /** SHA-256 of model.safetensors and of tokenizer.json as they are on the disk, in hexadecimal. */
  weights: string;
  tokenizer: string;
  /** SHA-256 of the model.safetensors that these weights were quantised from, where `quantize` says so. */
  source: string | undefined;
  /** What config.json comes to, but for dropout; undefined in a record that does not say. */
  config: Settings | undefined;
  /** What tokenizer_config.json comes to; undefined likewise. */
  tokenizerConfig: Settings | undefined;
}

/** @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, MODEL_UNSUPPORTED */
export async function fingerprint(model: ModelFolder): Promise<Fingerprint> {
  const [weights, tokenizer, { normalization }] = await Promise.all([
    hashOf(model.weightsPath),
    hashOf(path.join(model.path, "tokenizer.json")),
    readTokenizerFiles(model.path),
  ]);
  const { shape } = model;
  const config = {
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.intermediateSize,
    layer_norm_eps: shape.layerNormEps,
    max_position_embeddings: shape.maxPositions,
    num_attention_heads: shape.numHeads,
    num_hidden_layers: shape.numLayers,
    type_vocab_size: shape.typeVocabSize,
    vocab_size: shape.vocabSize,
  };
  const source = model.quantized === undefined ? undefined : await sourceWeights(model.path, weights);
  return { weights, tokenizer, source, config, tokenizerConfig: { ...normalization } };
}

async function hashOf(file: string): Promise<string> {
  return (await sha256(file)).hash;
}

/** SHA-256 of a file in hexadecimal, and its size. */
export async function sha256(file: string): Promise<{ hash: string; bytes: number }> {
  const hash = createHash("sha256");
  let bytes = 0;
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
      hash.update(chunk as Buffer);
      bytes += (chunk as Buffer).length;
    }
  } catch (cause) {
    throw fileError(file, cause);
  }
  return { hash: hash.digest("hex"), bytes };
}
