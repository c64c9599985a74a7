import type { CommandModule } from "yargs";
import { ENCODING_LENGTH, type FlagValues, OUTPUT_FLAGS, withFlags } from "../flags.js";
import { VECTOR_FLAGS } from "../vector-flags.js";

export const encodeCommand: CommandModule<object, FlagValues> = {
  command: "encode [file]",
  describe: "Turn texts into vectors, with an adapter or without",
  builder: (yargs) =>
    withFlags(yargs, VECTOR_FLAGS, { group: "Options:" })
      .options({
        max_length: { describe: `Tokens of a text; ${ENCODING_LENGTH}` },
        prefix: {
          describe:
            "Put before every text; default: as the adapter was trained, the model's own prompt, or nothing",
          defaultDescription: undefined,
        },
        adapter: {
          group: "Options:",
          describe:
            "Folder of an adapter or its name on the Hub, of this package or of PEFT; it says prefix, pooling and max_length",
        },
        input: {
          group: "Options:",
          describe: "Texts, where no FILE is given: .txt (one a line), .jsonl, .csv, .tsv or .parquet",
        },
        column: { group: "Options:", describe: "Column or key of the text in a file that has several" },
        output: {
          alias: "out",
          group: "Options:",
          describe:
            "Vectors, float32, one row a text in input order: .npy, .jsonl or .parquet; also --out [required]",
        },
        resume: {
          type: "boolean",
          group: "Options:",
          describe: "Go on with what an earlier run left of --output, to the same bytes",
        },
        normalize: {
          type: "boolean",
          group: "Options:",
          describe: "Scale vectors to length 1, so that a dot product is a cosine",
          defaultDescription: "true",
        },
        ...OUTPUT_FLAGS,
      })
      .example(
        '$0 encode texts.txt --model_name_or_path=models/e5-small-v2 --prefix="query: " --out=vectors.npy',
        "",
      ) as never,
  handler: async (args) => (await import("../run/encode.js")).runEncode(args),
};
