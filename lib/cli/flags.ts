import type { Argv, Options } from "yargs";
import { PeftTrainError } from "../errors.js";
import type { StorageRequest } from "../model/storage.js";
import { type OptionDefinition, type OptionName, TRAIN_OPTIONS } from "../train/options/option-table.js";
import { flagLabel, parseOption } from "../train/options/option-value.js";
import { storageRequest, type WeightOptionValues } from "../train/options/weight-options.js";

/** Parsed flags as yargs leaves them: text, true or false. */
export type FlagValues = Record<string, unknown>;

/** Flags that every command has which does work. */
export const OUTPUT_FLAGS = {
  json: {
    type: "boolean",
    group: "Display:",
    describe: "One JSON object a line on stdout, all else on stderr",
  },
  quiet: { type: "boolean", group: "Display:", describe: "Print warnings and errors only" },
} as const satisfies Record<string, Options>;

/** Where the commands that encode take their length from. */
export const ENCODING_LENGTH =
  "default: as the adapter was trained, as many as sentence-transformers takes, or 128";

/**
 * A training option as yargs shows it, with its other name, also where `changes` describe it anew. Values stay text, so that
 * an error can show what was typed.
 */
export function flagOf(name: OptionName, changes: Options = {}): Options {
  const definition: OptionDefinition = TRAIN_OPTIONS[name];
  const choices =
    definition.type === "string" && definition.choices ? ` (${definition.choices.join(", ")})` : "";
  const required = definition.type === "string" && definition.required ? " [required]" : "";
  const alias = definition.alias === undefined ? "" : `; also --${definition.alias}`;
  const fallback = definition.default;
  const { describe, ...others } = changes;
  return {
    ...(definition.type === "boolean" ? { type: "boolean" } : {}),
    // As Python's argparse takes them: every word up to the next flag.
    ...(["targets", "names", "numbers"].includes(definition.type) ? { array: true } : {}),
    ...(definition.alias === undefined ? {} : { alias: definition.alias }),
    group: `${definition.group}:`,
    describe:
      typeof describe === "string"
        ? describe + alias
        : definition.doc.charAt(0).toUpperCase() + definition.doc.slice(1) + alias + choices + required,
    ...(fallback === null || fallback === false ? {} : { defaultDescription: shown(fallback) }),
    ...others,
  };
}

/** Adds training options by name. */
export function withFlags<T>(yargs: Argv<T>, names: readonly OptionName[], changes: Options = {}): Argv<T> {
  for (const name of names) yargs.option(name, flagOf(name, changes));
  return yargs;
}

/** The given flags among `names`, checked; those that were left out are undefined. */
export function readFlags<N extends OptionName>(args: FlagValues, names: readonly N[]): Record<N, unknown> {
  const values = {} as Record<N, unknown>;
  for (const name of names) {
    const value = flagValue(args, name);
    values[name] = value === undefined ? undefined : parseOption(name, value);
  }
  return values;
}

/** What flags ask of the frozen weights. @throws USAGE where they contradict each other. */
export function flagRequest(values: WeightOptionValues): StorageRequest {
  return storageRequest(values, flagLabel);
}

/** What was typed for a flag: yargs gives `true` for one without the value that it needs, and several words as an array. */
export function flagValue(args: FlagValues, name: OptionName): unknown {
  const value = args[name];
  if (Array.isArray(value)) return value.join(",");
  return typeof value === "boolean" && TRAIN_OPTIONS[name].type !== "boolean"
    ? value
      ? ""
      : "false"
    : value;
}

/** A text flag that is not a training option. @throws USAGE when it has no value. */
export function textFlag(args: FlagValues, name: string): string | undefined {
  const value = args[name];
  if (value === undefined || (typeof value === "string" && value !== "")) return value as string | undefined;
  throw new PeftTrainError("USAGE", `--${name} needs a value`);
}

/** A flag of text that may be empty, as a prefix may. */
export function prefixFlag(args: FlagValues, name: string): string | undefined {
  const value = args[name];
  return value === undefined ? undefined : String(value);
}

/** A flag that is a number and not a training option. @throws USAGE */
export function numberFlag(args: FlagValues, name: string): number | undefined {
  const text = textFlag(args, name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new PeftTrainError("USAGE", `--${name}=${text}: expected a number`);
}

/** The words that a command takes as a list, such as folders. */
export function wordsOf(args: FlagValues, name: string): string[] {
  return ((args[name] as unknown[] | undefined) ?? []).map(String);
}

/** @throws USAGE naming every flag of `names` that was left out. */
export function requireFlags(args: FlagValues, names: readonly string[], example: string): void {
  const missing = names.filter((name) => args[name] === undefined);
  if (missing.length === 0) return;
  const list = missing.map((name) => `--${name}`).join(", ");
  throw new PeftTrainError("USAGE", `${list} ${missing.length > 1 ? "are" : "is"} required`, {
    hint: `For example: npx peft-train ${example}`,
  });
}

function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  return Array.isArray(value) ? value.join(",") : String(value);
}
