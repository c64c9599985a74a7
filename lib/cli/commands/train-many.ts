import type { CommandModule } from "yargs";
import { type FlagValues, OUTPUT_FLAGS } from "../flags.js";
import { withTrainFlags } from "./train.js";

export const trainManyCommand: CommandModule<object, FlagValues> = {
  command: "train-many",
  describe: "Train the adapters of several tenants at once over one base model",
  builder: (yargs) =>
    withTrainFlags(yargs)
      .option("config", {
        group: "Output:",
        describe:
          "YAML or JSON file: options for all as in train's, and below tenants: a name and its own options for each [required]",
      })
      .options(OUTPUT_FLAGS)
      .example("$0 train-many --config tenants.yaml --output_dir out", "Into out/NAME for every tenant"),
  handler: async (args) => (await import("../run/train-many.js")).runTrainMany(args),
};
