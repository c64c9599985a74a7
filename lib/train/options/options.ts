import type { LoraInit } from "../../adapter/lora-config.js";
import { nearest } from "../../data/nearest.js";
import { PeftTrainError } from "../../errors.js";
import { requireObject } from "../../option-names.js";
import { ADAPTER_OPTIONS, checkFullTraining } from "./full-training.js";
import { checkTogether } from "./option-rules.js";
import { type OptionDefinition, type OptionName, TRAIN_OPTIONS } from "./option-table.js";
import { flagLabel, type Label, parseOption } from "./option-value.js";
import type { ScheduleSettings } from "./schedule-settings.js";
import { TRAIN_WEIGHT_OPTIONS, type WeightOptionValues } from "./weight-options.js";

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
              : D extends { type: "pattern" }
                ? Readonly<Record<string, number>>
                : D extends { type: "init" }
                  ? LoraInit
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
  checkFullTraining(options, given, label);
  return options;
}

/** Checks the options of the library's `train`. @throws USAGE for a name that is none, else as `resolveOptions`. */
export function resolveTrainOptions(options: TrainOptions): ResolvedTrainOptions {
  requireObject(options, "train");
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

/** Every option by its flag. */
export function byFlag(options: ResolvedTrainOptions): Record<OptionName, unknown> {
  const values: Record<string, unknown> = { ...options };
  return Object.fromEntries(NAMES.map((name) => [name, values[camelCase(name)]])) as never;
}

/** By flag, without the token, which is written nowhere, and without those of an adapter where there is none. */
export function writableOptions(options: ResolvedTrainOptions): Partial<Record<OptionName, unknown>> {
  const left: ReadonlySet<string> = new Set(["hub_token", ...(options.usePeft ? [] : ADAPTER_OPTIONS)]);
  return Object.fromEntries(Object.entries(byFlag(options)).filter(([name]) => !left.has(name)));
}

/** Resolved options as somebody would give them, who says nothing of an adapter where there is none. */
export function givenOptions(options: ResolvedTrainOptions): TrainOptions {
  if (options.usePeft) return options;
  const left = new Set(ADAPTER_OPTIONS.map(camelCase));
  return Object.fromEntries(Object.entries(options).filter(([name]) => !left.has(name))) as TrainOptions;
}

/** Those that say how frozen weights are held. */
export function weightOptions(options: ResolvedTrainOptions): WeightOptionValues {
  const values = byFlag(options);
  return Object.fromEntries(TRAIN_WEIGHT_OPTIONS.map((name) => [name, values[name]]));
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
