import path from "node:path";
import type { CommandModule } from "yargs";
import { engineTorchVersion, type LibtorchLocation, locateLibtorch } from "../native/locate.js";
import { cacheFolder, type Device, libtorchFolder } from "../setup/cache.js";
import { installLibtorch } from "../setup/install.js";
import { CUDA_BYTES, TORCH_BYTES } from "../setup/pin.js";
import { pipArguments, pythonCommand } from "../setup/pip.js";
import { Interrupt } from "./interrupt.js";
import { SetupDisplay } from "./setup-display.js";

interface SetupArguments {
  device: Device;
  dir: string | undefined;
  force: boolean;
  dry_run: boolean;
}

export const setupCommand: CommandModule<object, SetupArguments> = {
  command: "setup",
  describe: "Find libtorch, and fetch it into the cache where there is none",
  builder: (yargs) =>
    yargs
      .option("device", {
        choices: ["cpu", "cuda"] as const,
        requiresArg: true,
        default: "cpu" as const,
        describe: "What it is for: cpu takes a fifth of the space of cuda",
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
      .example("$0 setup", "Get ready for work on the CPU"),
  handler: runSetup,
};

async function runSetup(args: SetupArguments): Promise<void> {
  const cache = args.dir === undefined ? cacheFolder() : path.resolve(args.dir);
  const found = args.force || args.dir !== undefined ? undefined : existing(args.device);
  if (found !== undefined) {
    process.stdout.write(
      `libtorch ${found.version} is in ${found.folder} (${found.source}); nothing to do.\n`,
    );
    return;
  }
  if (args.dry_run) {
    process.stdout.write(plan(args.device, cache));
    return;
  }
  using display = new SetupDisplay();
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  const folder = await installLibtorch({
    device: args.device,
    cache,
    force: args.force,
    onProgress: display.update,
    signal: stop.signal,
  }).finally(() => {
    process.exitCode = interrupt.exitCode;
  });
  process.stdout.write(`libtorch ${engineTorchVersion()} is ready in ${folder}\n`);
  if (cache !== cacheFolder()) {
    process.stdout.write(`To have it found, set: export PEFT_TRAIN_CACHE=${cache}\n`);
  }
}

/** An unfit PEFT_TRAIN_LIBTORCH is an error here too: fetching would not help, as it comes first. */
function existing(device: Device): LibtorchLocation | undefined {
  try {
    return locateLibtorch({ device });
  } catch (error) {
    if (process.env.PEFT_TRAIN_LIBTORCH) throw error;
    return undefined;
  }
}

function plan(device: Device, cache: string): string {
  const version = engineTorchVersion();
  const folder = libtorchFolder(cache, version, device);
  const requirements = [`torch==${version}`];
  const pip = pipArguments({ requirements, target: "TEMPORARY", dependencies: device === "cuda" });
  const bytes = device === "cuda" ? CUDA_BYTES : TORCH_BYTES;
  const gigabytes = (count: number): string => `${(count / 1e9).toFixed(1)} GB`;
  return [
    `Would run: ${pythonCommand(process.env)} ${pip.join(" ")}`,
    ...(device === "cpu"
      ? ["then the same for the CUDA runtime libraries that its CPU half is linked to,"]
      : []),
    `and rename the result to ${folder}`,
    `Download ${gigabytes(bytes.download)}, while unpacking ${gigabytes(bytes.download + bytes.unpacked)}` +
      (device === "cpu" ? `, kept ${gigabytes(TORCH_BYTES.kept)}.` : "."),
    "",
  ].join("\n");
}
