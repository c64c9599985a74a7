import { PeftTrainError } from "../../errors.js";
import type { TrainResult } from "../../train/events.js";
import type { OptionName } from "../../train/options/option-table.js";
import { PRECISION_FLAGS, TRAIN_OPTIONS } from "../../train/options/option-table.js";
import { flagLabel } from "../../train/options/option-value.js";
import { givenOptions, type ResolvedTrainOptions, resolveOptions } from "../../train/options/options.js";
import { train } from "../../train/train.js";
import { readConfigFile } from "../config-file.js";
import { JsonReport, QuietReport, type Report } from "../display/report.js";
import { TrainReport } from "../display/train-report.js";
import { type FlagValues, flagValue, textFlag } from "../flags.js";
import { refuseUnavailable } from "../unavailable.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";
import { resumeCommand } from "./resume-command.js";

/** `peft-train [train]`. */
export async function runTrain(args: FlagValues): Promise<void> {
  refuseUnavailable(args, args.typed as string[]);
  const options = resolveFlags(args);
  const report = reportFor(args, () => new TrainReport(options));
  const { stopped, checkpoint } = await trainWithReport(options, report);
  if (stopped && checkpoint !== null) {
    process.stderr.write(`Go on with: ${resumeCommand(args.typed as string[])}\n`);
  }
}

/** The options of the flags, and those of `--config` where no flag is given. */
function resolveFlags(args: FlagValues): ResolvedTrainOptions {
  const flags = trainFlags(args);
  const file = textFlag(args, "config");
  if (file === undefined) return resolveOptions(flags);
  const config = readConfigFile(file);
  const given = Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
  const isTyped = (name: OptionName): boolean => name in given || !(name in config.values);
  return resolveOptions({ ...config.values, ...given }, (name) =>
    isTyped(name) ? flagLabel(name) : `${config.place(name)}: ${name}`,
  );
}

/** What was typed for the training options. */
export function trainFlags(args: FlagValues): Partial<Record<OptionName, unknown>> {
  const names = Object.keys(TRAIN_OPTIONS) as OptionName[];
  const flags = Object.fromEntries(names.map((name) => [name, flagValue(args, name)]));
  const precision = PRECISION_FLAGS.filter((name) => args[name] === true);
  const [asked, other = flags.mixed_precision] = precision;
  if (asked === undefined) return flags;
  if (other !== undefined && other !== asked) {
    const found = precision.length > 1 ? `--${other}` : `--mixed_precision=${other}`;
    throw new PeftTrainError("USAGE", `--${asked} and ${found} contradict each other; give one of them`);
  }
  return { ...flags, mixed_precision: asked };
}

export function reportFor(args: FlagValues, forPeople: () => Report): Report {
  if (args.json === true) return new JsonReport();
  return args.quiet === true ? new QuietReport() : forPeople();
}

/** Runs a training run to its end, or to Ctrl-C, and sets the exit code. */
export async function trainWithReport(options: ResolvedTrainOptions, report: Report): Promise<TrainResult> {
  await using run = train(givenOptions(options), { engine: () => prepareEngine(options.device) });
  using interrupt = new Interrupt(() => {
    report.note("stopping after the step in hand; Ctrl-C again ends at once");
    run.stop();
  });
  try {
    for await (const event of run) report.event(event);
  } catch (error) {
    report.failed();
    // Ctrl-C while libtorch is being fetched: the set-up stops by itself.
    if (interrupt.exitCode !== undefined && error instanceof PeftTrainError && error.code === "ABORTED") {
      process.exitCode = interrupt.exitCode;
    }
    throw error;
  }
  const result = await run.result;
  if (result.stopped) process.exitCode = interrupt.exitCode ?? 130;
  return result;
}
