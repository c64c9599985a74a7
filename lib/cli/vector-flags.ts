import type { OptionName } from "../train/options/option-table.js";
import { WEIGHT_OPTIONS } from "../train/options/weight-options.js";

/** Flags of the commands that turn texts into vectors. */
export const VECTOR_FLAGS = [
  "model_name_or_path",
  "pooling",
  "max_length",
  "prefix",
  "device",
  "num_threads",
  ...WEIGHT_OPTIONS,
] as const satisfies OptionName[];
