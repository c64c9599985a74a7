import type { CommandModule } from "yargs";
import { ENCODING_LENGTH, type FlagValues, OUTPUT_FLAGS, withFlags } from "../flags.js";
import { VECTOR_FLAGS } from "../vector-flags.js";

export const searchCommand: CommandModule<object, FlagValues> = {
  command: "search [text]",
  describe: "Find the texts of an encoded file that are nearest to a text",
  builder: (yargs) =>
    withFlags(yargs, VECTOR_FLAGS, { group: "Options:" })
      .options({
        max_length: { describe: `Tokens of the text; ${ENCODING_LENGTH}` },
        prefix: {
          describe:
            "Put before the text; default: as the adapter was trained, the model's own prompt, or nothing",
          defaultDescription: undefined,
        },
        adapter: { group: "Options:", describe: "Folder of the adapter that the file was encoded with" },
        index: {
          group: "Options:",
          describe: "Vectors that encode wrote: .npy, .jsonl or .parquet [required]",
        },
        texts: { group: "Options:", describe: "The file that was encoded, to show texts beside the scores" },
        column: { group: "Options:", describe: "Column or key of the text in a file that has several" },
        top: { group: "Options:", describe: "How many to show", defaultDescription: "10" },
        ...OUTPUT_FLAGS,
      })
      .example(
        '$0 search "how do I swim" --model_name_or_path=models/e5-small-v2 --index=vectors.npy --texts=texts.txt',
        "",
      ) as never,
  handler: async (args) => (await import("../run/search.js")).runSearch(args),
};
