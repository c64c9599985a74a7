import type { Argv, CommandModule } from "yargs";
import { PeftTrainError } from "../errors.js";
import { VERSION } from "../version.js";
import {
  commandOf,
  helpAsFlag,
  joinSwitchValues,
  normalizeArguments,
  unknownCommand,
  usageError,
} from "./arguments.js";
import type { FlagValues } from "./flags.js";
import { helpText } from "./help.js";
import { exitCode, printError } from "./print-error.js";

interface Command {
  describe: string;
  /** Words that it takes before its flags. */
  words?: readonly string[];
  load: () => Promise<CommandModule<object, never>>;
}

/** Commands in the order of the help text; only the one that is asked for is loaded. */
const COMMANDS: Record<string, Command> = {
  train: {
    describe: "Fine-tune an encoder with LoRA on pairs or triplets; the word may be left out",
    load: async () => (await import("./commands/train.js")).trainCommand as never,
  },
  "train-many": {
    describe: "Train the adapters of several tenants at once over one base model",
    load: async () => (await import("./commands/train-many.js")).trainManyCommand as never,
  },
  demo: {
    describe: "Train the small encoder that comes with the package, in under a minute",
    load: async () => (await import("./commands/demo.js")).demoCommand as never,
  },
  eval: {
    describe: "Measure labelled pairs, scored pairs, triplets or retrieval, with an adapter or without",
    load: async () => (await import("./commands/eval.js")).evalCommand as never,
  },
  encode: {
    describe: "Turn texts into vectors, with an adapter or without",
    words: ["FILE"],
    load: async () => (await import("./commands/encode.js")).encodeCommand as never,
  },
  search: {
    describe: "Find the texts of an encoded file that are nearest to a text",
    words: ["TEXT"],
    load: async () => (await import("./commands/search.js")).searchCommand as never,
  },
  quantize: {
    describe: "Write a model in 4 or 8 bits a weight, for this package and for Python",
    words: ["MODEL"],
    load: async () => (await import("./commands/quantize.js")).quantizeCommand as never,
  },
  combine: {
    describe: "Make one adapter of several, each with its weight",
    words: ["ADAPTER", "ADAPTER"],
    load: async () => (await import("./commands/combine.js")).combineCommand as never,
  },
  merge: {
    describe: "Write a model whose weights hold what an adapter adds, and measure what that changed",
    load: async () => (await import("./commands/merge.js")).mergeCommand as never,
  },
  export: {
    describe: "Write a model for transformers, sentence-transformers or ONNX, with an adapter in its weights",
    load: async () => (await import("./commands/export.js")).exportCommand as never,
  },
  convert: {
    describe:
      "Write an adapter or a model in another form: names of tensors, type of numbers, 4 and 8 bits to plain",
    words: ["SOURCE"],
    load: async () => (await import("./commands/convert.js")).convertCommand as never,
  },
  inspect: {
    describe: "Say what a folder or a .safetensors file is, and what it would take to load it",
    words: ["PATH"],
    load: async () => (await import("./commands/inspect.js")).inspectCommand as never,
  },
  diff: {
    describe:
      "Hold two adapters against each other: norms, difference and cosine of each matrix; drift of texts",
    words: ["ADAPTER", "ADAPTER"],
    load: async () => (await import("./commands/diff.js")).diffCommand as never,
  },
  report: {
    describe: "Write the report.html of a run again, from the log in its folder",
    words: ["OUT_DIR"],
    load: async () => (await import("./commands/report.js")).reportCommand as never,
  },
  prepare: {
    describe: "Cut raw Quora question pairs into train.csv and test.csv, as the article did",
    load: async () => (await import("./commands/prepare.js")).prepareCommand as never,
  },
  "verify-resume": {
    describe: "Prove on your own data that a run which is killed and resumed ends in the same bytes",
    load: async () => (await import("./commands/verify-resume.js")).verifyResumeCommand as never,
  },
  setup: {
    describe: "Find libtorch, and fetch it into the cache where there is none",
    load: async () => (await import("./commands/setup.js")).setupCommand as never,
  },
  doctor: {
    describe: "Check this machine, train one step on every device, and say what to do about each problem",
    load: async () => (await import("./commands/doctor.js")).doctorCommand as never,
  },
};

/** Of yargs' own record of what a command defines. */
interface KnownFlags {
  key: Record<string, unknown>;
  boolean: string[];
}

const NAMES = Object.keys(COMMANDS);

/** Runs a command line (without node and script) and sets the exit code. */
export async function main(typed: readonly string[]): Promise<void> {
  // `peft-train eval --json | head` ends when head does.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  const args = helpAsFlag(normalizeArguments(typed));
  try {
    const asked = flagsBeforeWords(args);
    if (asked.includes("--version")) {
      process.stdout.write(`${VERSION}\n`);
    } else if (asked.includes("--help") || asked.includes("-h")) {
      process.stdout.write(await help(args));
    } else {
      await (await parse(args))?.();
    }
  } catch (error) {
    printError(error, args.includes("--json"));
    process.exitCode = process.exitCode || exitCode(error);
  }
}

/** What is typed before a lone `--`. */
function flagsBeforeWords(args: readonly string[]): readonly string[] {
  const end = args.indexOf("--");
  return end < 0 ? args : args.slice(0, end);
}

async function help(args: readonly string[]): Promise<string> {
  const named = commandOf(args, NAMES);
  const [first] = args;
  if (named === undefined && first !== undefined && !first.startsWith("-"))
    throw unknownCommand(first, NAMES);
  const { describe, words, load } = COMMANDS[named ?? "train"] as Command;
  const usage =
    named === undefined
      ? "npx peft-train [command] --flag=value ..."
      : `npx peft-train ${[named, ...(words ?? [])].join(" ")} ...`;
  const commands = named === undefined ? NAMES.map((name) => [name, COMMANDS[name]?.describe ?? ""]) : [];
  return helpText(usage, describe, await load(), Object.fromEntries(commands));
}

/** Parses the command line; what is left to do is the command's handler. */
async function parse(normalized: string[]): Promise<(() => unknown) | undefined> {
  const { default: yargs } = await import("yargs");
  const name = commandOf(normalized, NAMES) ?? "train";
  const module = await (COMMANDS[name] as Command).load();
  const known = knownFlags(module, yargs([]));
  const args = joinSwitchValues(normalized, known.boolean);
  const list = /\[(\w+)\.\.\]/.exec(String(module.command))?.[1];
  let run: (() => unknown) | undefined;
  const parser = yargs(args)
    .scriptName("peft-train")
    .locale("en")
    .parserConfiguration({
      "boolean-negation": true,
      "camel-case-expansion": false,
      "dot-notation": false,
      // yargs drops all words of a list but the last without it.
      "duplicate-arguments-array": list !== undefined,
      "parse-numbers": false,
      "parse-positional-numbers": false,
      "short-option-groups": false,
    })
    .exitProcess(false)
    .fail(false)
    .strict()
    .help(false)
    .version(false);
  for (const [other, { describe }] of Object.entries(COMMANDS)) {
    if (other !== name) parser.command(other, describe);
  }
  parser.command({
    ...module,
    describe: COMMANDS[name]?.describe ?? "",
    handler: (values: FlagValues) => {
      run = () => module.handler({ ...lastOfEach(values, list), typed: args } as never);
    },
  });
  try {
    await parser.parseAsync();
  } catch (error) {
    if (error instanceof PeftTrainError || !(error instanceof Error)) throw error;
    throw usageError(error.message, args, Object.keys(known.key), NAMES);
  }
  return run;
}

/** A flag that comes twice counts as it was given last; the words of a list are all meant. */
function lastOfEach(values: FlagValues, list: string | undefined): FlagValues {
  if (list === undefined) return values;
  const last = (name: string, value: unknown): unknown =>
    Array.isArray(value) && name !== list ? value.at(-1) : value;
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, last(name, value)]));
}

/** The flags that a command defines. */
function knownFlags(module: CommandModule<object, never>, yargs: Argv): KnownFlags {
  const built = (module.builder as (yargs: Argv) => Argv)(yargs);
  return (built as unknown as { getOptions: () => KnownFlags }).getOptions();
}
