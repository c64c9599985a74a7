import type { CommandModule } from "yargs";
import { type FlagValues, OUTPUT_FLAGS } from "../flags.js";

export const reportCommand: CommandModule<object, FlagValues> = {
  command: "report [folder]",
  describe: "Write the report.html of a run again, from the log in its folder",
  builder: (yargs) =>
    yargs
      .options({
        out: {
          group: "Options:",
          describe: "File to write; what was there is replaced",
          defaultDescription: '"report.html" in that folder',
        },
        ...OUTPUT_FLAGS,
      })
      .example("$0 report out", "Also of a run that goes on, or that was killed") as never,
  handler: async (args) => (await import("../run/report.js")).runReport(args),
};
