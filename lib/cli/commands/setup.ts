import type { CommandModule } from "yargs";
import type { Device } from "../../setup/cache.js";

export interface SetupArguments {
  device: Device | "auto";
  torch: string | undefined;
  mirror: string | undefined;
  dir: string | undefined;
  force: boolean;
  dry_run: boolean;
  remove: boolean;
}

export const setupCommand: CommandModule<object, SetupArguments> = {
  command: "setup",
  describe: "Find libtorch, and fetch it into the cache where there is none",
  builder: (yargs) =>
    yargs
      .option("device", {
        choices: ["auto", "cpu", "cuda"] as const,
        requiresArg: true,
        default: "auto" as const,
        describe: "What it is for; auto: cuda where there is a GPU with a driver that is new enough",
      })
      .option("torch", {
        type: "string",
        requiresArg: true,
        describe: "Version, of the minor version that the engine was compiled for; default: that one",
      })
      .option("mirror", {
        type: "string",
        requiresArg: true,
        describe: "Address of a package index, folder of wheels, or torch's wheel; default: pip's own index",
      })
      .option("dir", {
        type: "string",
        requiresArg: true,
        describe: "Folder to put it in, in place of the cache folder",
      })
      .option("force", { type: "boolean", default: false, describe: "Fetch it even if there is one" })
      .option("dry_run", {
        alias: "dry-run",
        type: "boolean",
        default: false,
        describe: "Say what would be done, and do nothing",
      })
      .option("remove", {
        type: "boolean",
        default: false,
        describe: "Remove every libtorch that set-up has put into the folder",
      })
      .example("$0 setup", "Get ready for work, on a GPU where there is one")
      .example("$0 setup --device cpu --mirror wheels/", "Without a network, from wheels that are here"),
  handler: async (args) => (await import("../run/setup.js")).runSetup(args),
};
