import type { CommandModule } from "yargs";
import { type FlagValues, OUTPUT_FLAGS } from "../flags.js";
import { withTrainFlags } from "./train.js";

export const verifyResumeCommand: CommandModule<object, FlagValues> = {
  command: "verify-resume",
  describe: "Prove on your own data that a run which is killed and resumed ends in the same bytes",
  builder: (yargs) =>
    withTrainFlags(yargs)
      .options({
        kills: {
          group: "Verify:",
          describe: "How many times the run is killed",
          defaultDescription: "3",
        },
        ...OUTPUT_FLAGS,
      })
      .example(
        "$0 verify-resume --model_name_or_path=models/e5-small-v2 --dataset_name=train.csv",
        "The first 60 steps, killed three times",
      ),
  handler: async (args) => (await import("../run/verify-resume.js")).runVerifyResume(args),
};
