import { LORA_BIASES } from "../../../adapter/lora-config.js";
import { LORA_INITS } from "../lora-values.js";
import type { OptionDefinition } from "./definition.js";

/** What is trained. */
export const LORA_OPTIONS = {
  use_peft: {
    group: "LoRA",
    type: "boolean",
    default: true,
    doc: "train a LoRA adapter; --no-use_peft: all parameters of the model, saved as a model folder",
  },
  lora_r: { group: "LoRA", type: "integer", default: 8, min: 1, max: 65536, doc: "rank" },
  lora_alpha: {
    group: "LoRA",
    type: "number",
    default: 16,
    min: 0,
    max: 1e6,
    above: true,
    doc: "the update is scaled by alpha / r",
  },
  lora_dropout: {
    group: "LoRA",
    type: "number",
    default: 0,
    min: 0,
    max: 1,
    below: true,
    doc: "dropout on what goes into the adapter, while training",
  },
  lora_target_modules: {
    group: "LoRA",
    type: "targets",
    default: ["query", "key", "value"],
    doc: "names (whole or last parts) with commas or blanks between, a regular expression over whole names, or all-linear",
  },
  exclude_modules: {
    group: "LoRA",
    type: "targets",
    default: null,
    doc: "of these, the ones that get no adapter: names or a regular expression, written as lora_target_modules",
  },
  layers_to_transform: {
    group: "LoRA",
    type: "numbers",
    default: null,
    min: 0,
    max: 65535,
    whole: true,
    doc: "only these layers, counted from 0, with commas between; default: all",
  },
  layers_pattern: {
    group: "LoRA",
    type: "names",
    default: null,
    doc: "what comes before the number of a layer in module names; default: any name, which for BERT is layer",
  },
  lora_rank_pattern: {
    group: "LoRA",
    type: "pattern",
    default: null,
    holds: "ranks",
    alias: "rank_pattern",
    doc: 'other ranks for some modules, as JSON: \'{"query": 16, "layer.0.output.dense": 4}\'; the first key that matches the end of a name counts',
  },
  lora_alpha_pattern: {
    group: "LoRA",
    type: "pattern",
    default: null,
    holds: "alphas",
    alias: "alpha_pattern",
    doc: "other values of alpha for some modules, likewise",
  },
  init_lora_weights: {
    group: "LoRA",
    type: "init",
    default: true,
    doc: `how A and B begin: ${LORA_INITS.join(", ")}; true: A uniform, B zero; docs/training.md has the others`,
  },
  use_dora: {
    group: "LoRA",
    type: "boolean",
    default: false,
    doc: "train a magnitude of every output beside the direction (DoRA)",
  },
  lora_bias: { group: "LoRA", type: "boolean", default: false, doc: "train a bias on B" },
  bias: {
    group: "LoRA",
    type: "string",
    default: "none",
    choices: LORA_BIASES,
    doc: "biases of the base model that train along: those of the modules with LoRA (lora_only), or all",
  },
  modules_to_save: {
    group: "LoRA",
    type: "names",
    default: null,
    alias: "lora_modules_to_save",
    doc: "modules of the base model of which a copy trains whole, by the ends of their names, with commas between: LayerNorm, output.dense, word_embeddings",
  },
  use_rslora: { group: "LoRA", type: "boolean", default: false, doc: "scale by alpha / sqrt(r) instead" },
} as const satisfies Record<string, OptionDefinition>;
