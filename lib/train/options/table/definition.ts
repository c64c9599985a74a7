import type { PatternKind } from "../lora-values.js";

interface Described {
  group: OptionGroup;
  doc: string;
  /** Another name that scripts use for the flag. */
  alias?: string;
}

/** One training option: its type, default and range. A `null` default means "not given". */
export type OptionDefinition = Described &
  (
    | {
        type: "string";
        default: string | null;
        mayBeEmpty?: true;
        choices?: readonly string[];
        required?: true;
        pattern?: RegExp;
        /** What the pattern takes, in words. */
        expected?: string;
      }
    | { type: "boolean"; default: boolean | null }
    | {
        type: "integer" | "number";
        default: number | null;
        min: number;
        max: number;
        above?: true;
        below?: true;
        powerOfTwo?: true;
      }
    | { type: "targets"; default: readonly string[] | null }
    | { type: "pattern"; default: null; holds: PatternKind }
    | { type: "init"; default: true }
    | { type: "names"; default: null }
    | { type: "numbers"; default: null; min: number; max: number; whole?: true }
    | { type: "checkpoints"; default: null }
    | { type: "settings"; default: null }
  );

export const OPTION_GROUPS = [
  "Model",
  "Weights",
  "Data",
  "Loss",
  "LoRA",
  "Training",
  "Evaluation",
  "Output",
  "Tracking",
  "Hub",
  "Machine",
] as const;
export type OptionGroup = (typeof OPTION_GROUPS)[number];

export const MOST = 2 ** 31 - 1;
