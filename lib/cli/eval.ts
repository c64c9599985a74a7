import type { CommandModule } from "yargs";
import type { OptionName } from "../train/options/option-table.js";
import { WEIGHT_OPTIONS } from "../train/options/weight-options.js";
import { type FlagValues, OUTPUT_FLAGS, withFlags } from "./flags.js";

export const EVAL_FLAGS = [
  "model_name_or_path",
  "pooling",
  "max_length",
  "dataset_name",
  "question1_column",
  "question2_column",
  "label_column",
  "score_column",
  "negative_column",
  "prefix",
  "question1_prefix",
  "question2_prefix",
  "per_device_eval_batch_size",
  "device",
  "num_threads",
  ...WEIGHT_OPTIONS,
] as const satisfies OptionName[];

export const evalCommand: CommandModule<object, FlagValues> = {
  command: "eval",
  describe: "Measure labelled pairs, scored pairs or triplets, with an adapter or without",
  builder: (yargs) =>
    withFlags(yargs, EVAL_FLAGS, { group: "Options:" })
      .options({
        dataset_name: {
          describe: "File of pairs or triplets: CSV, TSV or JSON Lines, gzip or not [required]",
        },
        max_length: { describe: "Tokens of a text; default: as the adapter was trained, or 128" },
        prefix: {
          describe: 'Put before both texts; default: as the adapter was trained, or "query: "',
          defaultDescription: undefined,
        },
      })
      .option("adapter", {
        group: "Options:",
        describe:
          "Folder of an adapter or its name on the Hub, of this package or of PEFT; it says prefixes, pooling and max_length",
      })
      .options(OUTPUT_FLAGS)
      .example(
        "$0 eval --model_name_or_path=models/e5-small-v2 --adapter=out --dataset_name=test.csv",
        "",
      ) as never,
  handler: async (args) => (await import("./run-eval.js")).runEval(args),
};
