import type { CommandModule } from "yargs";
import { EXPORT_FORMATS, EXPORT_TYPES } from "../../export/export.js";
import { type FlagValues, flagOf, OUTPUT_FLAGS } from "../flags.js";

export const exportCommand: CommandModule<object, FlagValues> = {
  command: "export",
  describe: "Write a model for other programs, with an adapter in its weights",
  builder: (yargs) =>
    yargs
      .options({
        format: {
          group: "Options:",
          describe: `What for (${EXPORT_FORMATS.join(", ")}) [required]`,
        },
        model_name_or_path: flagOf("model_name_or_path", { group: "Options:" }),
        adapter: { group: "Options:", describe: "Folder of an adapter, or its name on the Hub" },
        out: { group: "Options:", describe: "Folder for the model, new or empty [required]" },
        dtype: {
          group: "Options:",
          describe: `How weights are held, but for onnx (${EXPORT_TYPES.join(", ")})`,
          defaultDescription: "float32",
        },
        sentence_embedding: {
          type: "boolean",
          group: "Options:",
          describe: "onnx: give the vectors of texts as sentence_embedding, beside last_hidden_state",
        },
        pooling: flagOf("pooling", { group: "Options:" }),
        normalize: {
          type: "boolean",
          group: "Options:",
          describe: "Scale vectors of texts to length 1",
          defaultDescription: "true",
        },
        query_prefix: {
          group: "Options:",
          describe: "sentence-transformers: prompt of queries, and of plain encode [the adapter's]",
        },
        document_prefix: {
          group: "Options:",
          describe: "sentence-transformers: prompt of documents [the adapter's]",
        },
        max_length: flagOf("max_length", {
          group: "Options:",
          describe: "sentence-transformers: tokens of a text [the adapter's]",
          defaultDescription: undefined,
        }),
        ...OUTPUT_FLAGS,
      })
      .example(
        "$0 export --format onnx --model models/e5-small-v2 --adapter out --out e5-onnx",
        "For onnxruntime and transformers.js",
      )
      .example(
        "$0 export --format sentence-transformers --model models/e5-small-v2 --adapter out --out e5-st",
        "",
      ) as never,
  handler: async (args) => (await import("../run/export.js")).runExport(args),
};
