import { nearest } from "../data/nearest.js";
import { PeftTrainError } from "../errors.js";
import { type OptionName, TRAIN_OPTIONS, UNAVAILABLE_OPTIONS } from "../train/options/option-table.js";

/**
 * Brings flags to the one form that commands define: snake case, `--a_b`. `--no-a-b` keeps its `--no-`, which yargs
 * reads as "false"; what follows a lone `--` is left alone, and so are values.
 */
export function normalizeArguments(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  return args.map((arg, i) => {
    const match = /^--(no-)?([a-zA-Z][\w-]*)(=[\s\S]*)?$/.exec(arg);
    if (match === null || (end >= 0 && i >= end)) return arg;
    const [, negation = "", name = "", value = ""] = match;
    return `--${negation}${name.replaceAll("-", "_")}${value}`;
  });
}

const SWITCH_WORD = /^(true|false|yes|no|on|off|[tfyn01])$/i;

/**
 * Brings the values of switches to the one form that yargs reads as meant, `--use_peft=true`: Python's `True` and
 * `False` in any case of letters, behind `=` or as the next word.
 * @param args As normalised.
 * @throws USAGE for another value, which yargs would take for "false".
 */
export function joinSwitchValues(args: readonly string[], switches: readonly string[]): string[] {
  const joined: string[] = [];
  const end = args.indexOf("--");
  const flags = end < 0 ? args : args.slice(0, end);
  for (let i = 0; i < flags.length; i++) {
    const arg = flags[i] as string;
    const [, negation = "", name = "", equals] = /^--(no-)?(\w+)(?:=([\s\S]*))?$/.exec(arg) ?? [];
    const next = flags[i + 1] ?? "";
    const value = equals ?? (SWITCH_WORD.test(next) ? next : undefined);
    if (!switches.includes(name) || value === undefined) {
      joined.push(arg);
      continue;
    }
    if (!/^(true|false)$/i.test(value) || negation !== "") {
      throw new PeftTrainError(
        "USAGE",
        `--${negation}${name}=${value}: expected ${negation === "" ? "true or false" : "no value"}`,
        {
          hint: `Give --${name} alone, or --no-${name}.`,
        },
      );
    }
    joined.push(`--${name}=${value.toLowerCase()}`);
    if (equals === undefined) i++;
  }
  return end < 0 ? joined : [...joined, ...args.slice(end)];
}

/** The command that `args` names first, and nothing when it starts with a flag or another word. */
export function commandOf(args: readonly string[], commands: readonly string[]): string | undefined {
  const first = args[0];
  return first !== undefined && commands.includes(first) ? first : undefined;
}

/** `help` and `help encode`, as other commands have them, in the form that this one has. */
export function helpAsFlag(args: readonly string[]): string[] {
  return args[0] === "help" ? [...args.slice(1), "--help"] : [...args];
}

/**
 * What is left of a command line without some flags and their values.
 * @param args As normalised.
 */
export function withoutFlags(
  args: readonly string[],
  names: ReadonlySet<string>,
  hasValue = takesValue,
): string[] {
  const kept: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string;
    const [, name = "", value] = /^--(?:no-)?(\w+)(=[\s\S]*)?$/.exec(arg) ?? [];
    if (!names.has(name)) {
      kept.push(arg);
      continue;
    }
    // `--report_to wandb`: the word that follows is its value.
    if (value === undefined && hasValue(name) && args[i + 1]?.startsWith("-") === false) i++;
  }
  return kept;
}

/** Whether a training flag is more than a switch. */
export function takesValue(name: string): boolean {
  const type = TRAIN_OPTIONS[name as OptionName]?.type ?? UNAVAILABLE_OPTIONS[name]?.type;
  return type !== undefined && type !== "boolean";
}

/** A text as a shell takes it as one word. */
export function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * What yargs says of arguments it does not take, as an error with the nearest name.
 * @param args As normalised.
 * @param flags Names of the flags that the command knows.
 */
export function usageError(
  message: string,
  args: readonly string[],
  flags: readonly string[],
  commands: readonly string[],
): PeftTrainError {
  const unknown = /^Unknown arguments?: (.*)$/.exec(message)?.[1]?.split(", ");
  const missing = /^Missing required arguments?: (.*)$/.exec(message)?.[1]?.split(", ");
  const noValue = /^Not enough arguments following: (.*)$/.exec(message)?.[1];
  if (unknown !== undefined) return unknownArguments(unknown, args, flags, commands);
  if (missing !== undefined) {
    const names = missing.map((name) => `--${name}`).join(", ");
    return new PeftTrainError("USAGE", `${names} ${missing.length > 1 ? "are" : "is"} required`, {
      hint: "Add --help to see what each flag means.",
    });
  }
  const choice = /^Invalid values:\s+Argument: (\w+), Given: "(.*)", Choices: (.*)$/s.exec(message);
  if (choice !== null) {
    const [, name, given, choices = ""] = choice;
    return new PeftTrainError("USAGE", `--${name}=${given}: expected one of ${choices.replaceAll('"', "")}`);
  }
  if (noValue !== undefined) return new PeftTrainError("USAGE", `--${noValue} needs a value`);
  return new PeftTrainError("USAGE", message.replaceAll(/\s*\n\s*/g, " "), {
    hint: "Add --help to see what there is.",
  });
}

/** `quantize` has one flag for what takes two elsewhere. */
const QUANTIZE_HINTS: Readonly<Record<string, string>> = {
  load_in_8bit: "quantize writes 8 bits a weight with --int8.",
  load_in_4bit: "Leave it out: quantize writes 4 bits a weight unless --int8 is given.",
};

export function unknownCommand(word: string, commands: readonly string[]): PeftTrainError {
  const near = nearest(word, commands);
  return new PeftTrainError("USAGE", `unknown command ${word}`, {
    hint: near === undefined ? `Commands are ${commands.join(", ")}.` : `Did you mean ${near}?`,
  });
}

function unknownArguments(
  unknown: readonly string[],
  args: readonly string[],
  flags: readonly string[],
  commands: readonly string[],
): PeftTrainError {
  const isFlag = (name: string): boolean =>
    args.some((arg) => arg.replace(/^--(no-)?/, "--").split("=")[0] === `--${name}` || arg === `-${name}`);
  // yargs names every unknown flag and word; the first in the order typed is what to mend first.
  const word = unknown.find((name) => !isFlag(name));
  if (word !== undefined && args[0] === word) return unknownCommand(word, commands);
  const flag = unknown.find(isFlag);
  if (flag === undefined) {
    return new PeftTrainError("USAGE", `unexpected argument ${word}`, {
      hint: "Values follow their flag, as in --max_length 70; quote one that holds spaces.",
    });
  }
  const near = nearest(flag, flags);
  const quantizing = flags.includes("int8") ? QUANTIZE_HINTS[flag] : undefined;
  return new PeftTrainError("USAGE", `unknown flag ${flag.length === 1 ? "-" : "--"}${flag}`, {
    hint: quantizing ?? (near === undefined ? "Add --help to see what there is." : `Did you mean --${near}?`),
  });
}
