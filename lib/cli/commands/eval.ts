import type { CommandModule } from "yargs";
import type { OptionName } from "../../train/options/option-table.js";
import { WEIGHT_OPTIONS } from "../../train/options/weight-options.js";
import { ENCODING_LENGTH, type FlagValues, OUTPUT_FLAGS, withFlags } from "../flags.js";

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

const RETRIEVAL = "Retrieval:";

export const evalCommand: CommandModule<object, FlagValues> = {
  command: "eval",
  describe: "Measure labelled pairs, scored pairs, triplets or retrieval, with an adapter or without",
  builder: (yargs) =>
    withFlags(yargs, EVAL_FLAGS, { group: "Options:" })
      .options({
        dataset_name: {
          describe:
            "File of pairs or triplets: CSV, TSV, JSON Lines, gzip of them, or Parquet; or a folder in BEIR's layout, whose documents are ranked for its queries",
        },
        max_length: { describe: `Tokens of a text; ${ENCODING_LENGTH}` },
        prefix: {
          describe:
            'Put before both texts; default: as the adapter was trained, the model\'s own prompt, or "query: "',
          defaultDescription: undefined,
        },
      })
      .option("adapter", {
        group: "Options:",
        describe:
          "Folder of an adapter or its name on the Hub, of this package or of PEFT; it says prefixes, pooling and max_length",
      })
      .options({
        corpus: {
          group: RETRIEVAL,
          describe: "In place of a folder: file of documents, columns _id, text, perhaps title",
        },
        queries: { group: RETRIEVAL, describe: "File of queries, columns _id and text" },
        qrels: {
          group: RETRIEVAL,
          describe:
            "File of what is relevant, columns query-id, corpus-id, perhaps score; of a folder: qrels/test.tsv",
        },
        k: {
          group: RETRIEVAL,
          describe: "Places that are looked at, with commas between",
          defaultDescription: "1,3,5,10",
        },
        ignore_identical_ids: {
          type: "boolean",
          group: RETRIEVAL,
          describe: "Pass over the document that has the id of the query, as BEIR does",
        },
      })
      .options(OUTPUT_FLAGS)
      .example("$0 eval --model_name_or_path=models/e5-small-v2 --adapter=out --dataset_name=test.csv", "")
      .example(
        '$0 eval --model_name_or_path=models/e5-small-v2 --dataset_name=scifact --question2_prefix="passage: "',
        "",
      ) as never,
  handler: async (args) => (await import("../run/eval.js")).runEval(args),
};
