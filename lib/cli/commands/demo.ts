import type { CommandModule } from "yargs";
import { type FlagValues, OUTPUT_FLAGS } from "../flags.js";

export const demoCommand: CommandModule<object, FlagValues> = {
  command: "demo",
  describe: "Train the small encoder that comes with the package, in under a minute",
  builder: (yargs) =>
    yargs.options({
      output_dir: {
        group: "Options:",
        describe: "Folder for the adapter; an earlier demo in it is replaced",
        defaultDescription: '"peft-train-demo"',
      },
      seed: {
        group: "Options:",
        describe: "Of the initial weights, the order of the pairs and dropout",
        defaultDescription: "42",
      },
      num_threads: {
        group: "Options:",
        describe: "Threads of the matrix products; 0: one a physical core",
        defaultDescription: "0",
      },
      ...OUTPUT_FLAGS,
    }),
  handler: async (args) => (await import("../run/demo.js")).runDemo(args),
};
