import { PeftTrainError } from "../../errors.js";
import { allowedPattern, LORA_INITS, parseInit, parsePattern } from "./lora-values.js";
import { MOST_STEPS, type OptionDefinition, type OptionName, TRAIN_OPTIONS } from "./option-table.js";
import { parseSettings } from "./schedule-settings.js";
import { parseTargetText } from "./target-text.js";

/** How an option is called in messages: `--learning_rate` on the command line. */
export type Label = (name: OptionName) => string;
export const flagLabel: Label = (name) => `--${name}`;

/** Reads one value, which may be text. */
export function parseOption(name: OptionName, value: unknown, label = flagLabel): unknown {
  const definition: OptionDefinition = TRAIN_OPTIONS[name];
  const parsed = parseValue(definition, value, label(name));
  if (parsed !== undefined) return parsed;
  const text = typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value);
  const shown = value === "" ? "" : `=${text}`;
  throw new PeftTrainError("USAGE", `${label(name)}${shown}: expected ${allowed(definition)}`, {
    hint: `${label(name)}: ${definition.doc}.`,
  });
}

/** The value in the option's own type, or undefined where it is none. */
function parseValue(definition: OptionDefinition, value: unknown, flag: string): unknown {
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
      return parseTargets(value, flag);
    case "settings":
      return parseSettings(value);
    case "pattern":
      return parsePattern(value, definition.holds);
    case "init":
      return parseInit(value);
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

function parseTargets(value: unknown, flag: string): readonly string[] | string | undefined {
  if (typeof value === "string") return parseTargetText(value, flag);
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
    case "pattern":
      return allowedPattern(definition.holds);
    case "init":
      return `one of ${LORA_INITS.join(", ")}`;
    case "names":
      return "names with commas between";
    case "numbers":
      return `${definition.whole ? "whole numbers" : "numbers"} from ${definition.min} to ${definition.max} with commas between`;
    case "checkpoints":
      return `a whole number of at least 1 and at most ${MOST_STEPS}, or epoch`;
  }
}
