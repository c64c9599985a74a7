import type { TrainResult } from "../../train/events.js";
import { type OptionName, TRAIN_OPTIONS } from "../../train/options/option-table.js";
import { byFlag, type ResolvedTrainOptions, weightOptions } from "../../train/options/options.js";
import { shellQuote } from "../arguments.js";
import { shortPath } from "./terminal.js";

export function nextSteps(commands: readonly string[]): string {
  return ["Next:", ...commands.map((command) => `  ${command}`)].join("\n");
}

/** Those that were given, so that what follows computes with the weights that the adapter was trained on. */
function weightFlags(options: ResolvedTrainOptions): string[] {
  const { compute, mixed_precision: _, ...held } = weightOptions(options);
  // Forward alone is what 8-bit weights do anyway; mixed precision is of training alone.
  return Object.entries({ ...held, load_in_8bit: held.load_in_8bit || compute === "int8" })
    .filter(([, value]) => value !== null && value !== false)
    .map(([name, value]) => (value === true ? `--${name}` : `--${name}=${String(value)}`));
}

const COLUMNS = [
  "question1_column",
  "question2_column",
  "label_column",
  "score_column",
  "negative_column",
] as const satisfies OptionName[];

/** Those that were given, so that an evaluation reads what training read. */
function columnFlags(options: ResolvedTrainOptions): string[] {
  const values = byFlag(options);
  return COLUMNS.filter((name) => values[name] !== TRAIN_OPTIONS[name].default).map(
    (name) => `--${name}=${shellQuote(String(values[name]))}`,
  );
}

/** What to try with what was trained. */
export function nextCommands(options: ResolvedTrainOptions, { outputDir }: TrainResult): string[] {
  const trained = shellQuote(shortPath(outputDir));
  const base = [shellQuote(options.modelNameOrPath), ...weightFlags(options)].join(" ");
  const model = options.usePeft ? `${base} --adapter=${trained}` : trained;
  const evaluated = options.evalDatasetName ?? options.datasetName;
  const data = [shellQuote(evaluated), ...columnFlags(options)].join(" ");
  return [
    `npx peft-train eval --model_name_or_path=${model} --dataset_name=${data}`,
    `npx peft-train encode --model_name_or_path=${model} --input=texts.txt --output=vectors.npy`,
  ];
}
