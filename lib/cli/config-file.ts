import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, type Scalar, type YAMLMap } from "yaml";
import { RUN_CONFIG_FILE } from "../adapter/folder.js";
import { fileError } from "../data/file-error.js";
import { nearest } from "../data/nearest.js";
import { PeftTrainError } from "../errors.js";
import {
  type OptionDefinition,
  type OptionName,
  TRAIN_OPTIONS,
  UNAVAILABLE_OPTIONS,
} from "../train/options/option-table.js";

/** A file of training options, read and not yet checked against their ranges. */
export interface ConfigFile {
  values: Partial<Record<OptionName, unknown>>;
  /** Where an option stands, as `run.yaml:3`. */
  place: (name: OptionName) => string;
}

/** Keys that tell other people's files of the same name, and what such a file is. */
const STRANGERS: [keys: string[], kind: string][] = [
  [["peft_type"], "the configuration of an adapter"],
  [["model_type", "architectures", "hidden_size"], "the configuration of a model"],
  [["compute_environment", "distributed_type"], "a configuration of accelerate"],
];

/**
 * Reads the training options of a YAML or JSON file, under the names of the flags.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE; USAGE with file and line; NOT_YET_AVAILABLE
 */
export function readConfigFile(file: string): ConfigFile {
  const { contents, at } = readMap(file);
  return optionsIn(contents, at);
}

/** A YAML or JSON file that is a map at its top. @throws FILE_NOT_FOUND, FILE_UNREADABLE; USAGE with file and line */
export function readMap(file: string): { contents: YAMLMap; at: (offset: number) => string } {
  const lines = new LineCounter();
  // JSON is YAML; one parser gives both their lines. Version 1.2 keeps `no` a word.
  const document = parseDocument(readText(file), {
    version: "1.2",
    schema: "core",
    lineCounter: lines,
    prettyErrors: false,
    logLevel: "error",
  });
  const at = (offset: number): string => `${file}:${lines.linePos(offset).line}`;
  const mistake = document.errors[0] ?? document.warnings[0];
  if (mistake !== undefined) {
    throw new PeftTrainError("USAGE", `${at(mistake.pos[0])}: ${mistake.message}`, {
      hint: "A configuration is YAML or JSON: names of flags and their values.",
    });
  }
  if (!isMap(document.contents)) {
    throw new PeftTrainError("USAGE", `${file}: expected names of flags and their values, found none`, {
      hint: "One a line in YAML, as in: num_train_epochs: 3",
    });
  }
  refuseStranger(file, (key) => document.has(key));
  return { contents: document.contents, at };
}

/** The training options of a map. @throws USAGE with file and line; NOT_YET_AVAILABLE */
export function optionsIn(contents: YAMLMap, at: (offset: number) => string): ConfigFile {
  const values: ConfigFile["values"] = {};
  const places = new Map<OptionName, string>();
  for (const { key, value } of contents.items) {
    const place = at(isNode(key) ? (key.range?.[0] ?? 0) : 0);
    const written = isScalar(key) ? String(key.value) : String(key);
    const plain = plainValue(value);
    if (plain === undefined) {
      throw new PeftTrainError("USAGE", `${place}: ${written}: expected a value or a list of values`);
    }
    const name = optionNamed(written, plain, place);
    if (name === undefined) continue;
    if (isMap(value) && !["settings", "pattern"].includes(TRAIN_OPTIONS[name].type)) {
      throw new PeftTrainError("USAGE", `${place}: ${written}: expected a value or a list of values`);
    }
    const earlier = places.get(name);
    if (earlier !== undefined) {
      throw new PeftTrainError("USAGE", `${place}: ${written} was set already, at ${earlier}`);
    }
    values[name] = plain;
    places.set(name, place);
  }
  const start = at(contents.range?.[0] ?? 0);
  return { values, place: (name) => places.get(name) ?? start };
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8").replace(/^\uFEFF/, "");
  } catch (cause) {
    const saved = path.join(path.dirname(file), RUN_CONFIG_FILE);
    const error = fileError(file, cause);
    if (error.code !== "FILE_NOT_FOUND" || !existsSync(saved)) throw error;
    throw new PeftTrainError(error.code, error.message, { hint: `Did you mean ${saved}?`, cause });
  }
}

function refuseStranger(file: string, has: (key: string) => boolean): void {
  const kind = STRANGERS.find(([keys]) => keys.some(has))?.[1];
  if (kind === undefined) return;
  throw new PeftTrainError("USAGE", `${file} is ${kind}, not of a training run`, {
    hint: `A run saves its own as ${RUN_CONFIG_FILE} in its output folder.`,
  });
}

/** The option that `written` means; undefined for one that is not there yet and asks for nothing. */
function optionNamed(written: string, value: unknown, place: string): OptionName | undefined {
  const name = written.replaceAll("-", "_");
  const names = Object.keys(TRAIN_OPTIONS) as OptionName[];
  const found = names.find((option) => {
    const definition: OptionDefinition = TRAIN_OPTIONS[option];
    return option === name || definition.alias === name;
  });
  if (found !== undefined) return found;
  const unavailable = UNAVAILABLE_OPTIONS[name];
  if (unavailable === undefined) {
    const near = nearest(name, names);
    throw new PeftTrainError("USAGE", `${place}: unknown option ${written}`, {
      hint: near === undefined ? "Names are those of the flags; see --help." : `Did you mean ${near}?`,
    });
  }
  if (value === null || unavailable.off.includes(String(value))) return undefined;
  throw new PeftTrainError("NOT_YET_AVAILABLE", `${place}: ${name} is not available in this version`, {
    hint: "Leave it out.",
  });
}

/** A scalar, a list or a map of scalars; undefined for anything deeper and for aliases, which could grow without end. */
function plainValue(node: unknown): unknown {
  if (node === null) return null;
  if (isScalar(node)) return node.value;
  if (isMap(node)) {
    if (!node.items.every(({ key, value }) => isScalar(key) && isScalar(value))) return undefined;
    return Object.fromEntries(
      node.items.map(({ key, value }) => [String((key as Scalar).value), (value as Scalar).value]),
    );
  }
  if (!isSeq(node) || !node.items.every(isScalar)) return undefined;
  return node.items.map((item) => (item as Scalar).value);
}
