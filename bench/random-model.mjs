import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";

const SHAPE = {
  architectures: ["BertModel"],
  model_type: "bert",
  vocab_size: 30522,
  hidden_size: 384,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  intermediate_size: 1536,
  max_position_embeddings: 512,
  type_vocab_size: 2,
  hidden_act: "gelu",
  layer_norm_eps: 1e-12,
  hidden_dropout_prob: 0.1,
  attention_probs_dropout_prob: 0.1,
  initializer_range: 0.02,
  pad_token_id: 0,
};

/** A model folder of e5-small's shape with random weights and the tokenizer of the folder `tokenizer`. */
export function writeE5Shape(folder, tokenizer) {
  mkdirSync(folder, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"])
    if (existsSync(join(tokenizer, name))) copyFileSync(join(tokenizer, name), join(folder, name));
  writeFileSync(join(folder, "config.json"), JSON.stringify(SHAPE));
  const header = {};
  let bytes = 0;
  for (const [name, shape] of tensors()) {
    const size = 4 * count(shape);
    header[name] = { dtype: "F32", shape, data_offsets: [bytes, bytes + size] };
    bytes += size;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(join(folder, "model.safetensors"), "w");
  writeSync(file, length);
  writeSync(file, text);
  let state = 1;
  for (const [name, shape] of tensors()) {
    const values = new Float32Array(count(shape));
    if (name.endsWith("LayerNorm.weight")) values.fill(1);
    else if (!name.endsWith("bias")) state = fill(values, state);
    writeSync(file, values);
  }
  closeSync(file);
  return folder;
}

const count = (shape) => shape.reduce((product, side) => product * side, 1);

/** Evenly spread with the deviation of the config, from a linear congruential generator. */
function fill(values, start) {
  let state = start;
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 32 - 0.5) * SHAPE.initializer_range * Math.sqrt(12);
  }
  return state;
}

function* tensors() {
  const { hidden_size: d, intermediate_size: f, num_hidden_layers: layers } = SHAPE;
  const linear = (name, out, input) => [
    [`${name}.weight`, [out, input]],
    [`${name}.bias`, [out]],
  ];
  const norm = (name) => [
    [`${name}.LayerNorm.weight`, [d]],
    [`${name}.LayerNorm.bias`, [d]],
  ];
  yield ["embeddings.word_embeddings.weight", [SHAPE.vocab_size, d]];
  yield ["embeddings.position_embeddings.weight", [SHAPE.max_position_embeddings, d]];
  yield ["embeddings.token_type_embeddings.weight", [SHAPE.type_vocab_size, d]];
  yield* norm("embeddings");
  for (let layer = 0; layer < layers; layer++) {
    const at = `encoder.layer.${layer}`;
    for (const part of ["query", "key", "value"]) yield* linear(`${at}.attention.self.${part}`, d, d);
    yield* linear(`${at}.attention.output.dense`, d, d);
    yield* norm(`${at}.attention.output`);
    yield* linear(`${at}.intermediate.dense`, f, d);
    yield* linear(`${at}.output.dense`, d, f);
    yield* norm(`${at}.output`);
  }
}
