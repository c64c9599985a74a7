import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseModelConfig } from "../../lib/model/config.js";

/** A BERT of 2 layers over the vocabulary of test/fixtures/tokenizer. */
export const TINY_CONFIG = {
  architectures: ["BertModel"],
  attention_probs_dropout_prob: 0.1,
  hidden_act: "gelu",
  hidden_dropout_prob: 0.1,
  hidden_size: 32,
  intermediate_size: 64,
  layer_norm_eps: 1e-12,
  max_position_embeddings: 64,
  model_type: "bert",
  num_attention_heads: 2,
  num_hidden_layers: 2,
  type_vocab_size: 2,
  vocab_size: 205,
};

const tokenizer = fileURLToPath(new URL("../fixtures/tokenizer", import.meta.url));

/** What LoRA finds its targets in. */
export const TINY_MODEL = { shape: parseModelConfig(TINY_CONFIG, "config.json"), hasPooler: true };

export interface TinyModelOptions {
  config?: Record<string, unknown>;
  /** Seed of the weights: another seed gives another base model of the same shape. */
  seed?: number;
  pooler?: boolean;
}

/** Writes a model folder with random weights, the same for the same seed. */
export function writeTinyModel(folder: string, options: TinyModelOptions = {}): string {
  mkdirSync(folder, { recursive: true });
  const config = { ...TINY_CONFIG, ...options.config };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 2));
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    cpSync(join(tokenizer, name), join(folder, name));
  }
  writeFileSync(
    join(folder, "model.safetensors"),
    tinyWeights(options.seed ?? 1, options.pooler ?? true, config),
  );
  return folder;
}

function tinyWeights(seed: number, pooler: boolean, sizes: typeof TINY_CONFIG): Buffer {
  const { hidden_size: d, intermediate_size: f, vocab_size: vocab } = sizes;
  const shapes: [name: string, shape: number[]][] = [
    ["embeddings.word_embeddings.weight", [vocab, d]],
    ["embeddings.position_embeddings.weight", [sizes.max_position_embeddings, d]],
    ["embeddings.token_type_embeddings.weight", [2, d]],
  ];
  const norm = (name: string) => shapes.push([`${name}.weight`, [d]], [`${name}.bias`, [d]]);
  const linear = (name: string, out: number, input: number) =>
    shapes.push([`${name}.weight`, [out, input]], [`${name}.bias`, [out]]);
  norm("embeddings.LayerNorm");
  for (let i = 0; i < sizes.num_hidden_layers; i++) {
    const at = `encoder.layer.${i}`;
    for (const name of ["query", "key", "value"]) linear(`${at}.attention.self.${name}`, d, d);
    linear(`${at}.attention.output.dense`, d, d);
    norm(`${at}.attention.output.LayerNorm`);
    linear(`${at}.intermediate.dense`, f, d);
    linear(`${at}.output.dense`, d, f);
    norm(`${at}.output.LayerNorm`);
  }
  if (pooler) linear("pooler.dense", d, d);

  const random = mulberry32(seed);
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const parts: Buffer[] = [];
  let position = 0;
  for (const [name, shape] of shapes) {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    for (let i = 0; i < values.length; i++) {
      values[i] = name.endsWith("LayerNorm.weight") ? 1 : name.endsWith(".bias") ? 0 : (random() - 0.5) * 0.4;
    }
    parts.push(Buffer.from(values.buffer));
    header[name] = { dtype: "F32", shape, data_offsets: [position, position + values.byteLength] };
    position += values.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...parts]);
}

/** A small generator with 32 bits of state; quality does not matter here, sameness does. */
export function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
