import type { CommandModule } from "yargs";
import { MERGE_TYPES } from "../../merge/merge.js";
import { type FlagValues, flagOf, OUTPUT_FLAGS } from "../flags.js";

/** Texts on which vectors are compared. */
export const PROBE_FLAGS = {
  probe: {
    group: "Options:",
    describe:
      "Texts to compare vectors on: .txt, .jsonl, .csv or .tsv [256 questions that come with the package]",
  },
  column: { group: "Options:", describe: "Column or key of the text in a .csv, .tsv or .jsonl file" },
};

export const mergeCommand: CommandModule<object, FlagValues> = {
  command: "merge",
  describe: "Write a model whose weights hold what an adapter adds, and measure what that changed",
  builder: (yargs) =>
    yargs
      .options({
        model_name_or_path: flagOf("model_name_or_path", { group: "Options:" }),
        adapter: { group: "Options:", describe: "Folder of an adapter, or its name on the Hub [required]" },
        out: { group: "Options:", describe: "Folder for the merged model, new or empty [required]" },
        dtype: {
          group: "Options:",
          describe: `How merged weights are held (${MERGE_TYPES.join(", ")})`,
          defaultDescription: "float32",
        },
        tolerance: {
          group: "Options:",
          describe:
            "Largest 1 - cosine between the merged model's vectors and those of base and adapter [0.001; none for 4 and 8 bits]",
        },
        ...PROBE_FLAGS,
        num_threads: flagOf("num_threads", { group: "Options:" }),
        ...OUTPUT_FLAGS,
      })
      .example("$0 merge --model models/e5-small-v2 --adapter out --out merged", "") as never,
  handler: async (args) => (await import("../run/merge.js")).runMerge(args),
};
