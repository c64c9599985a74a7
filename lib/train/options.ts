import { DEFAULT_LORA, type LoraConfig } from "../adapter/lora-config.js";
import { nearest } from "../data/nearest.js";
import { PeftTrainError } from "../errors.js";
import { anchoredSide } from "./anchor.js";
import { checkEvaluationOptions } from "./best-metric.js";
import { lossRequest } from "./losses.js";
import { MOST_STEPS, type OptionDefinition, type OptionName, TRAIN_OPTIONS } from "./option-table.js";
import { checkScheduleSettings, parseSettings, type ScheduleSettings } from "./schedule-settings.js";
import { parseTargetText } from "./target-text.js";
import { storageRequest, TRAIN_WEIGHT_OPTIONS, type WeightOptionValues } from "./weight-options.js";

type Camel<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<Camel<Tail>>}`
  : S;
type Choice<D> = D extends { choices: readonly (infer C)[] } ? C : string;
type Value<D> = D extends { type: "boolean" }
  ? boolean
  : D extends { type: "integer" | "number" }
    ? number
    : D extends { type: "names" }
      ? readonly string[]
      : D extends { type: "numbers" }
        ? readonly number[]
        : D extends { type: "targets" }
          ? readonly string[] | string
          : D extends { type: "checkpoints" }
            ? number | "epoch"
            : D extends { type: "settings" }
              ? ScheduleSettings
              : Choice<D>;
type Optional<D> = D extends { default: null; required: true }
  ? never
  : D extends { default: null }
    ? null
    : never;
type Table = typeof TRAIN_OPTIONS;

/** Every training option with its value: `null` where it was not given and has no default. */
export type ResolvedTrainOptions = {
  readonly [K in OptionName as Camel<K>]: Value<Table[K]> | Optional<Table[K]>;
};

type Required = "modelNameOrPath" | "datasetName" | "outputDir";

/** Options of `train`, named as the flags in camel case; docs/training.md lists them. */
export type TrainOptions = Pick<ResolvedTrainOptions, Required> & {
  [K in Exclude<keyof ResolvedTrainOptions, Required>]?: ResolvedTrainOptions[K] | undefined;
};

const NAMES = Object.keys(TRAIN_OPTIONS) as OptionName[];
export const camelCase = (name: string): string =>
  name.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());

/** How an option is called in messages: `--learning_rate` on the command line. */
export type Label = (name: OptionName) => string;
export const flagLabel: Label = (name) => `--${name}`;

/**
 * Checks every option and fills in the defaults, before anything is read or loaded.
 * @param given By flag, in snake case: of the option's own type, or as text from a command line.
 * @throws USAGE naming the option, its value and what is allowed; NOT_YET_AVAILABLE.
 */
export function resolveOptions(
  given: Partial<Record<OptionName, unknown>>,
  label = flagLabel,
): ResolvedTrainOptions {
  const resolved: Record<string, unknown> = {};
  for (const name of NAMES) {
    const definition: OptionDefinition = TRAIN_OPTIONS[name];
    const value = given[name];
    resolved[camelCase(name)] =
      value === undefined || (value === null && definition.default === null)
        ? definition.default
        : parseOption(name, value, label);
  }
  requireOptions(resolved, label);
  const options = resolved as unknown as ResolvedTrainOptions;
  checkTogether(options, label);
  return options;
}

/** Checks the options of the library's `train`. @throws USAGE for a name that is none, else as `resolveOptions`. */
export function resolveTrainOptions(options: TrainOptions): ResolvedTrainOptions {
  const names = new Map(NAMES.map((name) => [camelCase(name), name]));
  const given: Partial<Record<OptionName, unknown>> = {};
  for (const [key, value] of Object.entries(options)) {
    const name = names.get(key);
    if (name === undefined) {
      const near = nearest(key, [...names.keys()]);
      throw new PeftTrainError("USAGE", `unknown training option ${key}`, {
        ...(near === undefined ? {} : { hint: `Did you mean ${near}?` }),
      });
    }
    given[name] = value;
  }
  return resolveOptions(given, camelCase);
}

/** What the LoRA options mean to the adapter. */
export function loraConfig(options: ResolvedTrainOptions): LoraConfig {
  return {
    ...DEFAULT_LORA,
    r: options.loraR,
    loraAlpha: options.loraAlpha,
    loraDropout: options.loraDropout,
    targetModules: options.loraTargetModules,
    useRslora: options.useRslora,
  };
}

/** Every option by its flag. */
export function byFlag(options: ResolvedTrainOptions): Record<OptionName, unknown> {
  const values: Record<string, unknown> = { ...options };
  return Object.fromEntries(NAMES.map((name) => [name, values[camelCase(name)]])) as never;
}

/** By flag, without the token, which is written nowhere. */
export function writableOptions(options: ResolvedTrainOptions): Partial<Record<OptionName, unknown>> {
  const { hub_token: _, ...rest } = byFlag(options);
  return rest;
}

/** Those that say how frozen weights are held. */
export function weightOptions(options: ResolvedTrainOptions): WeightOptionValues {
  const values = byFlag(options);
  return Object.fromEntries(TRAIN_WEIGHT_OPTIONS.map((name) => [name, values[name]]));
}

/** Reads one value, which may be text. */
export function parseOption(name: OptionName, value: unknown, label = flagLabel): unknown {
  const definition: OptionDefinition = TRAIN_OPTIONS[name];
  const parsed = parseValue(definition, value);
  if (parsed !== undefined) return parsed;
  const text = typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value);
  const shown = value === "" ? "" : `=${text}`;
  throw new PeftTrainError("USAGE", `${label(name)}${shown}: expected ${allowed(definition)}`, {
    hint: `${label(name)}: ${definition.doc}.`,
  });
}

/** The value in the option's own type, or undefined where it is none. */
function parseValue(definition: OptionDefinition, value: unknown): unknown {
  switch (definition.type) {
    case "string":
      if (typeof value !== "string" || (value === "" && !definition.mayBeEmpty)) return undefined;
      if (definition.choices !== undefined && !definition.choices.includes(value)) return undefined;
      return definition.pattern === undefined || definition.pattern.test(value) ? value : undefined;
    case "boolean":
      if (typeof value === "boolean") return value;
      return value === "true" ? true : value === "false" ? false : undefined;
    case "integer":
    case "number": {
      const number = toNumber(value);
      if (number === undefined || (definition.type === "integer" && !Number.isInteger(number)))
        return undefined;
      if (definition.above ? number <= definition.min : number < definition.min) return undefined;
      if (definition.powerOfTwo && !Number.isInteger(Math.log2(number))) return undefined;
      return (definition.below ? number >= definition.max : number > definition.max) ? undefined : number;
    }
    case "targets":
      return parseTargets(value);
    case "settings":
      return parseSettings(value);
    case "names":
      return listOf(value, (item) => (typeof item === "string" && item !== "" ? item : undefined));
    case "numbers":
      return listOf(value, (item) => {
        const number = toNumber(item);
        const { min, max, whole } = definition;
        if (number === undefined || number < min || number > max) return undefined;
        return whole && !Number.isInteger(number) ? undefined : number;
      });
    case "checkpoints": {
      if (value === "epoch") return value;
      const steps = toNumber(value);
      return steps !== undefined && Number.isInteger(steps) && steps > 0 && steps <= MOST_STEPS
        ? steps
        : undefined;
    }
  }
}

function toNumber(value: unknown): number | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (typeof value !== "string" || !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(value)) return undefined;
  return Number(value);
}

/** A list, or its items with commas between; undefined unless there is one and `item` takes all of them. */
function listOf<T>(value: unknown, item: (part: unknown) => T | undefined): T[] | undefined {
  const parts = typeof value === "string" ? value.split(",").map((part) => part.trim()) : value;
  if (!Array.isArray(parts) || parts.length === 0) return undefined;
  const items = parts.map(item);
  return items.includes(undefined) ? undefined : (items as T[]);
}

function parseTargets(value: unknown): readonly string[] | string | undefined {
  if (typeof value === "string") return parseTargetText(value);
  const isList = Array.isArray(value) && value.every((name) => typeof name === "string" && name !== "");
  return isList && value.length > 0 ? value : undefined;
}

function allowed(definition: OptionDefinition): string {
  switch (definition.type) {
    case "string":
      if (definition.choices !== undefined) return `one of ${definition.choices.join(", ")}`;
      return definition.pattern === undefined ? "a value" : (definition.expected ?? "a value");
    case "boolean":
      return "true or false";
    case "integer":
    case "number": {
      if (definition.powerOfTwo) return `a power of two from ${definition.min} to ${definition.max}`;
      const kind = definition.type === "integer" ? "a whole number" : "a number";
      const from = definition.above ? `above ${definition.min}` : `of at least ${definition.min}`;
      return `${kind} ${from} and ${definition.below ? "below" : "at most"} ${definition.max}`;
    }
    case "targets":
      return "module names, a regular expression or all-linear";
    case "settings":
      return "a JSON object, such as '{\"num_cycles\": 3}'";
    case "names":
      return "names with commas between";
    case "numbers":
      return `${definition.whole ? "whole numbers" : "numbers"} from ${definition.min} to ${definition.max} with commas between`;
    case "checkpoints":
      return `a whole number of at least 1 and at most ${MOST_STEPS}, or epoch`;
  }
}

function requireOptions(resolved: Record<string, unknown>, label: Label): void {
  const missing = NAMES.filter(
    (name) => "required" in TRAIN_OPTIONS[name] && resolved[camelCase(name)] === null,
  );
  if (missing.length === 0) return;
  throw new PeftTrainError(
    "USAGE",
    `${missing.map(label).join(", ")} ${missing.length > 1 ? "are" : "is"} required`,
    {
      hint: "For example: npx peft-train --model_name_or_path=models/e5-small-v2 --dataset_name=train.csv --output_dir=out; or try npx peft-train demo.",
    },
  );
}

function checkTogether(options: ResolvedTrainOptions, label: Label): void {
  if (options.mixedPrecision === "fp8") {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${label("mixed_precision")}=fp8 is not available in this version`,
      { hint: `Give bf16 or fp16, or ${label("compute")}=int8 on a CPU.` },
    );
  }
  if (!options.usePeft) {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${label("use_peft")}=false: training all weights is not available in this version`,
      { hint: `Leave it out: a LoRA adapter is trained.` },
    );
  }
  checkScheduleSettings(options, label);
  storageRequest(weightOptions(options), label);
  lossRequest(options, label);
  anchoredSide(options, label);
  if (options.keepDataset !== null && options.keepWeight === null && !isEvaluated(options)) {
    throw new PeftTrainError(
      "USAGE",
      `${label("keep_dataset")} needs ${label("keep_weight")}, or ${label("eval_dataset_name")} or ${label("eval_fraction")} to measure drift beside`,
    );
  }
  checkEvaluationOptions(options, label);
  if (options.compute === "int8" && options.device !== "cpu") {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${label("compute")}=int8 on ${label("device")}=${options.device} is not available in this version`,
      { hint: `Leave ${label("compute")} out, or train on the CPU.` },
    );
  }
  if (options.evalDatasetName !== null && options.evalFraction !== null) {
    throw new PeftTrainError(
      "USAGE",
      `${label("eval_dataset_name")} and ${label("eval_fraction")} are two ways to say the same; give one of them`,
    );
  }
}

function isEvaluated({ evalDatasetName, evalFraction }: ResolvedTrainOptions): boolean {
  return evalDatasetName !== null || evalFraction !== null;
}
