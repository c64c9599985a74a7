import path from "node:path";
import { PeftTrainError } from "../../errors.js";
import { type LibtorchLocation, locateLibtorch } from "../../native/locate.js";
import { cacheFolder, type Device } from "../../setup/cache.js";
import { carryOut } from "../../setup/install.js";
import { CUDA_BYTES, TORCH_BYTES } from "../../setup/pin.js";
import { pipArguments, pythonCommand } from "../../setup/pip.js";
import { type Plan, planInstall } from "../../setup/plan.js";
import { findRemovable, removeOne } from "../../setup/remove.js";
import type { SetupArguments } from "../commands/setup.js";
import { SetupDisplay } from "../display/setup-display.js";
import { Interrupt } from "./interrupt.js";

/** `peft-train setup` */
export async function runSetup(args: SetupArguments): Promise<void> {
  const cache = args.dir === undefined ? cacheFolder() : path.resolve(args.dir);
  if (args.remove) return remove(cache, args);
  const { device, torch, mirror } = args;
  const plan = await planInstall({ device, torch, mirror, cache });
  const found = args.force || args.dir !== undefined ? undefined : existing(plan.device, torch);
  if (found !== undefined) {
    process.stdout.write(
      `libtorch ${found.version} is in ${found.folder} (${found.source}); nothing to do.\n`,
    );
    return;
  }
  if (args.dry_run) {
    process.stdout.write(described(plan));
    return;
  }
  using display = new SetupDisplay();
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  const folder = await carryOut(plan, {
    force: args.force,
    onProgress: display.update,
    onNote: display.note,
    signal: stop.signal,
  }).finally(() => {
    process.exitCode = interrupt.exitCode;
  });
  process.stdout.write(`libtorch ${plan.version} is ready in ${folder}\n`);
  if (cache !== cacheFolder()) {
    process.stdout.write(`To have it found, set: export PEFT_TRAIN_CACHE=${cache}\n`);
  }
}

/** An unfit PEFT_TRAIN_LIBTORCH is an error here too: fetching would not help, as it comes first. */
function existing(device: Device, torch: string | undefined): LibtorchLocation | undefined {
  try {
    const found = locateLibtorch({ device });
    const exact = torch !== undefined && /\..*\./.test(torch);
    return exact && found.version !== torch ? undefined : found;
  } catch (error) {
    if (process.env.PEFT_TRAIN_LIBTORCH) throw error;
    return undefined;
  }
}

async function remove(cache: string, args: SetupArguments): Promise<void> {
  const others = (["torch", "mirror", "force"] as const).filter((name) => args[name]);
  if (others.length > 0) {
    throw new PeftTrainError("USAGE", `--remove does not go with --${others.join(", --")}`);
  }
  const found = await findRemovable(cache);
  if (found.length === 0) process.stdout.write(`There is no libtorch of set-up in ${cache}.\n`);
  const stop = new AbortController();
  using _ = new Interrupt(() => stop.abort());
  for (const each of found) {
    if (!args.dry_run) await removeOne(each, stop.signal);
    const did = args.dry_run ? "Would remove" : "Removed";
    process.stdout.write(`${did} ${each.path} (${gigabytes(each.bytes)})\n`);
  }
}

function described(plan: Plan): string {
  const { version, device, folder, way, notes } = plan;
  const bytes = device === "cuda" ? CUDA_BYTES : TORCH_BYTES;
  const kept = device === "cpu" ? `, kept ${gigabytes(TORCH_BYTES.kept)}` : "";
  const lines = [...notes];
  if (way.kind === "pip") {
    const requirements = [`torch==${version}`];
    const pip = { requirements, target: "TEMPORARY", dependencies: device === "cuda", index: way.index };
    lines.push(`Would run: ${pythonCommand(process.env)} ${pipArguments(pip).join(" ")}`);
    if (device === "cpu")
      lines.push("then the same for the CUDA runtime libraries that its CPU half is linked to,");
    lines.push(`and rename the result to ${folder}`);
    lines.push(
      `Download ${gigabytes(bytes.download)}, while unpacking ${gigabytes(bytes.download + bytes.unpacked)}${kept}.`,
    );
  } else if (way.kind === "https") {
    lines.push(`Would fetch the pinned wheels of torch ${version} for ${device} from ${way.index},`);
    lines.push(`check their SHA-256, and unpack them into ${folder}`);
    lines.push(`Download ${gigabytes(bytes.download)}${kept}.`);
  } else {
    lines.push(`Would unpack torch ${version} for ${device} from ${way.mirror.wheel ?? way.mirror.folder}`);
    lines.push(`into ${folder}${kept}.`);
  }
  return `${lines.join("\n")}\n`;
}

function gigabytes(count: number): string {
  return `${(count / 1e9).toFixed(1)} GB`;
}
