import type { CommandModule } from "yargs";
import { CONVERT_TYPES, KEY_LAYOUTS } from "../../merge/convert.js";
import { type FlagValues, flagOf, OUTPUT_FLAGS } from "../flags.js";

export const convertCommand: CommandModule<object, FlagValues> = {
  command: "convert [source]",
  describe:
    "Write an adapter or a model in another form: names of tensors, type of numbers, 4 and 8 bits to plain",
  builder: (yargs) =>
    yargs
      .options({
        out: { group: "Options:", describe: "Folder for what is written, new or empty [required]" },
        dtype: {
          group: "Options:",
          describe: `How numbers are held (${CONVERT_TYPES.join(", ")}); npx peft-train quantize writes 4 and 8 bits`,
          defaultDescription: "float32",
        },
        layout: {
          group: "Options:",
          describe: `Adapters: names of tensors, as for an encoder or for one that is model of a wrapper (${KEY_LAYOUTS.join(", ")})`,
          defaultDescription: "plain",
        },
        model_name_or_path: flagOf("model_name_or_path", {
          group: "Options:",
          describe: "Base model of an adapter of PiSSA or OLoRA that PEFT saved, which becomes plain LoRA",
        }),
        ...OUTPUT_FLAGS,
      })
      .example("$0 convert models/e5-small-v2-nf4 --out models/e5-small-v2-again", "4 bits to float32")
      .example(
        "$0 convert old-adapter --out adapter",
        "Names base_model.model.model. to base_model.model.",
      ) as never,
  handler: async (args) => (await import("../run/convert.js")).runConvert(args),
};
