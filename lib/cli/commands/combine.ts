import type { CommandModule } from "yargs";
import { COMBINATION_METHODS } from "../../adapter/combine-factors.js";
import { type FlagValues, OUTPUT_FLAGS } from "../flags.js";

export const combineCommand: CommandModule<object, FlagValues> = {
  command: "combine [adapters..]",
  describe: "Make one adapter of several, each with its weight",
  builder: (yargs) =>
    yargs
      .options({
        out: { group: "Options:", describe: "Folder for the combined adapter, new or empty [required]" },
        weights: {
          group: "Options:",
          describe: "One an adapter, with commas between; negative takes its effect away [1 each]",
        },
        method: {
          group: "Options:",
          alias: "combination_type",
          describe: `cat: the exact sum, of all ranks together; svd: the nearest to it of one rank; the others as PEFT computes them (${COMBINATION_METHODS.join(", ")}); also --combination_type`,
          defaultDescription: "cat",
        },
        svd_rank: { group: "Options:", describe: "svd methods: rank of the result [the largest given]" },
        svd_clamp: { group: "Options:", describe: "svd methods: quantile of the entries to clamp to" },
        density: {
          group: "Options:",
          describe: "ties, dare, magnitude_prune: part of the entries that stays, above 0 and at most 1",
        },
        majority_sign_method: {
          group: "Options:",
          describe: "ties, dare_ties: what elects a sign, the sum or the number (total, frequency) [total]",
        },
        seed: { group: "Options:", describe: "dare: seed of the masks [0]" },
        ...OUTPUT_FLAGS,
      })
      .example("$0 combine out-support out-sales --weights 0.7,0.3 --out out-both", "The exact weighted sum")
      .example("$0 combine out-support out-sales --method svd --svd_rank 8 --out out-both", "") as never,
  handler: async (args) => (await import("../run/combine.js")).runCombine(args),
};
