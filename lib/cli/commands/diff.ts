import type { CommandModule } from "yargs";
import { type FlagValues, flagOf, OUTPUT_FLAGS } from "../flags.js";
import { PROBE_FLAGS } from "./merge.js";

export const diffCommand: CommandModule<object, FlagValues> = {
  command: "diff [adapters..]",
  describe: "Hold two adapters against each other: what they add to each matrix, and how far they move texts",
  builder: (yargs) =>
    yargs
      .options({
        model_name_or_path: flagOf("model_name_or_path", {
          group: "Options:",
          describe: "Base model: compare the vectors of texts as well",
        }),
        ...PROBE_FLAGS,
        num_threads: flagOf("num_threads", { group: "Options:" }),
        ...OUTPUT_FLAGS,
      })
      .example("$0 diff out-monday out-tuesday --model models/e5-small-v2", "") as never,
  handler: async (args) => (await import("../run/diff.js")).runDiff(args),
};
