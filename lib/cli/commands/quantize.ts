import type { CommandModule } from "yargs";
import type { OptionName } from "../../train/options/option-table.js";
import { type FlagValues, flagOf, OUTPUT_FLAGS, withFlags } from "../flags.js";

export const QUANTIZE_FLAGS = [
  "bnb_4bit_quant_type",
  "bnb_4bit_use_double_quant",
  "quant_block_size",
  "outlier_fraction",
  "outlier_threshold",
] as const satisfies OptionName[];

export const quantizeCommand: CommandModule<object, FlagValues> = {
  command: "quantize [source]",
  describe: "Write a model in 4 or 8 bits a weight, for this package and for Python",
  builder: (yargs) =>
    withFlags(yargs, QUANTIZE_FLAGS, { group: "Options:" })
      .options({
        model_name_or_path: flagOf("model_name_or_path", {
          group: "Options:",
          describe: "The model, where no MODEL is given",
        }),
        out: { group: "Options:", describe: "Folder for the quantised model, new or empty [required]" },
        int8: { type: "boolean", group: "Options:", describe: "8 bits a weight (LLM.int8) instead of 4" },
        ...OUTPUT_FLAGS,
      })
      .example("$0 quantize models/e5-small-v2 --out models/e5-small-v2-nf4", "NF4, in blocks of 64")
      .example(
        "$0 quantize models/e5-small-v2 --out small --bnb_4bit_use_double_quant --outlier_fraction 0.005",
        "Scales in 8 bits too, and half a percent of the weights in float16",
      )
      .example("$0 quantize models/e5-small-v2 --out int8 --int8", "") as never,
  handler: async (args) => (await import("../run/quantize.js")).runQuantize(args),
};
