import path from "node:path";
import Table from "cli-table3";
import type { CommandModule } from "yargs";
import { ARTICLE_SPLIT, type PrepareResult, prepareSplit } from "../../data/prepare.js";
import { PeftTrainError } from "../../errors.js";
import { ByteProgress } from "../display/byte-progress.js";
import { requireFlags, textFlag } from "../flags.js";
import { Interrupt } from "../run/interrupt.js";

interface PrepareArguments {
  input: string;
  output_dir: string;
  min_chars: string;
  max_chars: string;
  train_fraction: string;
  seed: string;
  force: boolean;
}

export const prepareCommand: CommandModule<object, PrepareArguments> = {
  command: "prepare",
  describe: "Cut raw Quora question pairs into train.csv and test.csv, as the article did",
  builder: (yargs) =>
    yargs
      .option("input", {
        type: "string",
        requiresArg: true,
        describe:
          "Raw pairs, .tsv or .csv, with the columns id, question1, question2 and is_duplicate [required]",
      })
      .option("output_dir", {
        alias: "output-dir",
        type: "string",
        requiresArg: true,
        describe: "Folder for train.csv and test.csv [required]",
      })
      .option("min_chars", {
        alias: "min-chars",
        type: "string",
        requiresArg: true,
        default: String(ARTICLE_SPLIT.minChars),
        describe: "Both questions are longer than this, in characters",
      })
      .option("max_chars", {
        alias: "max-chars",
        type: "string",
        requiresArg: true,
        default: String(ARTICLE_SPLIT.maxChars),
        describe: "Both questions are shorter than this, in characters",
      })
      .option("train_fraction", {
        alias: "train-fraction",
        type: "string",
        requiresArg: true,
        default: String(ARTICLE_SPLIT.trainFraction),
        describe: "Share of the pairs that goes into train.csv",
      })
      .option("seed", {
        type: "string",
        requiresArg: true,
        default: String(ARTICLE_SPLIT.seed),
        describe: "Seed of numpy's RandomState, which draws the split",
      })
      .option("force", {
        type: "boolean",
        default: false,
        describe: "Replace train.csv and test.csv that are there already",
      })
      .example(
        "$0 prepare --input=quora_duplicate_questions.tsv --output_dir=quora",
        "The article's split",
      ) as never,
  handler: runPrepare,
};

async function runPrepare(args: PrepareArguments): Promise<void> {
  requireFlags(
    { ...args },
    ["input", "output_dir"],
    "prepare --input=quora_duplicate_questions.tsv --output_dir=quora",
  );
  for (const name of ["input", "output_dir"]) textFlag({ ...args }, name);
  const numbers = {
    minChars: numberFlag(args, "min_chars"),
    maxChars: numberFlag(args, "max_chars"),
    trainFraction: numberFlag(args, "train_fraction"),
    seed: numberFlag(args, "seed"),
  };
  const progress = new ByteProgress(`Reading ${path.basename(args.input)}`);
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  try {
    const result = await prepareSplit({
      input: args.input,
      outputDir: args.output_dir,
      ...numbers,
      force: args.force,
      onProgress: (bytesRead, bytesTotal) => progress.update(bytesRead, bytesTotal),
      signal: stop.signal,
    });
    progress.stop();
    process.stdout.write(report(args, result));
  } finally {
    progress.stop();
    process.exitCode = interrupt.exitCode;
  }
}

/** Each with the range that it has to be in. */
const NUMBERS = {
  min_chars: { least: 0, most: Number.MAX_SAFE_INTEGER, whole: true },
  max_chars: { least: 2, most: Number.MAX_SAFE_INTEGER, whole: true },
  train_fraction: { least: 0, most: 1, whole: false },
  seed: { least: 0, most: 2 ** 32 - 1, whole: true },
} as const;

function numberFlag(args: PrepareArguments, name: keyof typeof NUMBERS): number {
  const { least, most, whole } = NUMBERS[name];
  const value = /^(\d+\.?\d*|\.\d+)$/.test(args[name]) ? Number(args[name]) : Number.NaN;
  // Of a fraction both ends are left out: they would leave one of the two files empty.
  const fits = whole
    ? Number.isInteger(value) && value >= least && value <= most
    : value > least && value < most;
  if (fits) return value;
  const limit = most === Number.MAX_SAFE_INTEGER ? "" : ` and at most ${most}`;
  const expected = whole
    ? `a whole number of at least ${least}${limit}`
    : `a number above ${least} and below ${most}`;
  throw new PeftTrainError("USAGE", `--${name}=${args[name]}: expected ${expected}`);
}

function report(args: PrepareArguments, result: PrepareResult): string {
  const { train, test } = result;
  const table = new Table({
    head: ["Written", "Pairs", "Duplicates", "Share"],
    colAligns: ["left", "right", "right", "right"],
    style: { head: [], border: [] },
  });
  for (const part of [train, test]) {
    const share = `${((100 * part.positives) / part.rows).toFixed(1)} %`;
    table.push([part.path, number(part.rows), number(part.positives), share]);
  }
  const kept = train.rows + test.rows;
  return [
    `${number(result.rowsRead)} rows read, ${number(kept)} kept: both questions longer than ${args.min_chars} and ` +
      `shorter than ${args.max_chars} characters (${number(result.tooShort)} too short, ${number(result.tooLong)} too long).`,
    table.toString(),
    "Next:",
    `  npx peft-train --model_name_or_path=MODEL_FOLDER --dataset_name=${quoted(train.path)} \\`,
    `    --eval_dataset_name=${quoted(test.path)} --max_length=70 --output_dir=adapter`,
    "",
  ].join("\n");
}

function number(value: number): string {
  return value.toLocaleString("en-US");
}

/** A path as a shell takes it. */
function quoted(file: string): string {
  return /^[\w./-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`;
}
