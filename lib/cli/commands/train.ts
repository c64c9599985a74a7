import type { Argv, CommandModule } from "yargs";
import {
  OPTION_GROUPS,
  type OptionName,
  PRECISION_FLAGS,
  TRAIN_OPTIONS,
  UNAVAILABLE_OPTIONS,
} from "../../train/options/option-table.js";
import { type FlagValues, OUTPUT_FLAGS, withFlags } from "../flags.js";

export const trainCommand: CommandModule<object, FlagValues> = {
  command: ["train", "$0"],
  describe: "Fine-tune an encoder with LoRA on pairs or triplets (also without the word train)",
  builder: (yargs) =>
    withTrainFlags(yargs)
      .option("config", {
        group: "Output:",
        describe:
          "YAML or JSON file of options, named as the flags; flags win. A run saves its own as train_config.json",
      })
      .options(OUTPUT_FLAGS)
      .example("$0 demo", "Train a small encoder in a minute, with nothing to prepare")
      .example(
        "$0 --model_name_or_path=models/e5-small-v2 --dataset_name=train.csv --eval_dataset_name=test.csv --max_length=70 --output_dir=out",
        "The article's run",
      ),
  handler: async (args) => (await import("../run/train.js")).runTrain(args),
};

/** Adds every training option, group by group. */
export function withTrainFlags<T>(yargs: Argv<T>): Argv<T> {
  const names = Object.keys(TRAIN_OPTIONS) as OptionName[];
  for (const group of OPTION_GROUPS) {
    withFlags(
      yargs,
      names.filter((name) => TRAIN_OPTIONS[name].group === group),
    );
  }
  for (const name of PRECISION_FLAGS) yargs.option(name, { type: "boolean", hidden: true });
  for (const [name, { type }] of Object.entries(UNAVAILABLE_OPTIONS)) {
    yargs.option(name, { ...(type === "boolean" ? { type } : {}), hidden: true });
  }
  return yargs;
}
