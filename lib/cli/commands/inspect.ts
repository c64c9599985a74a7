import type { CommandModule } from "yargs";
import { type FlagValues, OUTPUT_FLAGS } from "../flags.js";

export const inspectCommand: CommandModule<object, FlagValues> = {
  command: "inspect [path]",
  describe: "Say what a folder or a .safetensors file is, and what it would take to load it",
  builder: (yargs) =>
    yargs
      .options({
        tensors: {
          type: "boolean",
          group: "Options:",
          describe: "List every tensor with type, shape and size",
        },
        json: OUTPUT_FLAGS.json,
      })
      .example("$0 inspect models/e5-small-v2", "")
      .example("$0 inspect out --json", "") as never,
  handler: async (args) => (await import("../run/inspect.js")).runInspect(args),
};
