import type { CommandModule } from "yargs";

export interface DoctorArguments {
  json: boolean;
}

export const doctorCommand: CommandModule<object, DoctorArguments> = {
  command: "doctor",
  describe: "Check this machine, train one step on every device, and say what to do about each problem",
  builder: (yargs) =>
    yargs
      .option("json", { type: "boolean", default: false, describe: "One JSON object in place of the table" })
      .example("$0 doctor", "What works here and what does not")
      .example("$0 doctor --json > doctor.json", "The same for a program or a bug report"),
  handler: async (args) => (await import("../run/doctor.js")).runDoctor(args),
};
