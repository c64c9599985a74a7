import { DATA_OPTIONS } from "./table/data.js";
import { MOST, type OptionDefinition } from "./table/definition.js";
import { EVALUATION_OPTIONS } from "./table/evaluation.js";
import { LORA_OPTIONS } from "./table/lora.js";
import { LOSS_OPTIONS } from "./table/loss.js";
import { MACHINE_OPTIONS } from "./table/machine.js";
import { MODEL_OPTIONS } from "./table/model.js";
import { OUTPUT_OPTIONS } from "./table/output.js";
import { TRAINING_OPTIONS } from "./table/training.js";

export { OPTION_GROUPS, type OptionDefinition } from "./table/definition.js";

/** Optimiser steps of a run: the number of a step keys its dropout masks in 32 bits. */
export const MOST_STEPS = MOST;

/**
 * Every training option by its flag: the one place that the command line, the library and the documentation take
 * names, types, defaults and ranges from. `above` and `below` leave out the end of the range itself.
 */
export const TRAIN_OPTIONS = {
  ...MODEL_OPTIONS,
  ...DATA_OPTIONS,
  ...LOSS_OPTIONS,
  ...LORA_OPTIONS,
  ...TRAINING_OPTIONS,
  ...EVALUATION_OPTIONS,
  ...OUTPUT_OPTIONS,
  ...MACHINE_OPTIONS,
} as const satisfies Record<string, OptionDefinition>;

export type OptionName = keyof typeof TRAIN_OPTIONS;

/** The options of some groups of the help text. */
export function optionsOf(...groups: OptionDefinition["group"][]): OptionName[] {
  const names = Object.keys(TRAIN_OPTIONS) as OptionName[];
  return names.filter((name) => groups.includes(TRAIN_OPTIONS[name].group));
}

/** transformers' other way to say --mixed_precision. */
export const PRECISION_FLAGS = ["fp16", "bf16"] as const;

/**
 * Flags of the article's script and of its relatives that are understood and not there yet, with the values that ask
 * for nothing (so that scripts which spell out defaults go on working).
 */
export const UNAVAILABLE_OPTIONS: Record<string, { type: "string" | "boolean"; off: readonly string[] }> = {
  bnb_4bit_compute_dtype: { type: "string", off: ["float32"] },
};
