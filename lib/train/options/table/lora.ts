import type { OptionDefinition } from "./definition.js";

/** What is trained. */
export const LORA_OPTIONS = {
  use_peft: { group: "LoRA", type: "boolean", default: true, doc: "train a LoRA adapter" },
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
  use_rslora: { group: "LoRA", type: "boolean", default: false, doc: "scale by alpha / sqrt(r) instead" },
} as const satisfies Record<string, OptionDefinition>;
