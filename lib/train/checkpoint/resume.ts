import { PeftTrainError } from "../../errors.js";
import { type OptionName, optionsOf, TRAIN_OPTIONS } from "../options/option-table.js";
import { byFlag, type ResolvedTrainOptions } from "../options/options.js";
import { scheduleOf } from "../options/schedule-settings.js";
import type { Plan, TrainData } from "../preparation.js";
import { runLength } from "../run-length.js";
import { needsTotalSteps } from "../step/schedule.js";
import type { Checkpoint, Machine, RunIdentity } from "./checkpoint.js";

/**
 * Options that a resumed run may change: they say where and how often, not what comes out. Files are held against what
 * they contain, the length of the run and its warm-up against what they come to. Any other option must stay as it was.
 */
const FREE: ReadonlySet<OptionName> = new Set<OptionName>([
  "model_name_or_path",
  "dataset_name",
  "eval_dataset_name",
  "keep_dataset",
  "per_device_eval_batch_size",
  "num_train_epochs",
  "max_train_steps",
  "num_warmup_steps",
  "warmup_ratio",
  "activation_checkpointing",
  "early_stopping_patience",
  ...optionsOf("Output", "Tracking", "Hub"),
  "device",
  "num_threads",
]);

/** What decides the result of this run. */
export function identityOf(
  options: ResolvedTrainOptions,
  { training, evaluation, kept }: TrainData,
): RunIdentity {
  const { totalSteps, warmupSteps } = scheduleOf(options, runLength(options, training.count).totalSteps);
  return {
    options: fixedOptions(options),
    totalSteps,
    warmupSteps,
    trainPairs: training.count,
    trainSha256: training.sha256,
    evalPairs: evaluation?.count ?? 0,
    evalSha256: evaluation?.sha256 ?? null,
    keepSha256: kept?.sha256 ?? null,
  };
}

function fixedOptions(options: ResolvedTrainOptions): RunIdentity["options"] {
  return Object.fromEntries(
    Object.entries(byFlag(options)).filter(([name]) => !FREE.has(name as OptionName)),
  );
}

/**
 * Holds data, base model and schedule of a run against the checkpoint that it is to go on from.
 * @throws CHECKPOINT_MISMATCH naming what differs.
 */
export function requireSameRun(checkpoint: Checkpoint, plan: Plan, data: TrainData): void {
  const found = identityOf(plan.options, data);
  requireSameSchedule(checkpoint, plan.options, found);
  requireSameData(checkpoint, found, data);
  const { base } = checkpoint.record;
  for (const [what, expected, actual] of [
    ["model.safetensors", base.weights, data.base.weights],
    ["tokenizer.json", base.tokenizer, data.base.tokenizer],
    ["config.json", JSON.stringify(base.config), JSON.stringify(data.base.config)],
    [
      "tokenizer_config.json",
      JSON.stringify(base.tokenizerConfig),
      JSON.stringify(data.base.tokenizerConfig),
    ],
  ] as const) {
    if (expected === actual) continue;
    const verb = what.endsWith("config.json") ? "comes to" : "has SHA-256";
    throw mismatch(
      `${checkpoint.folder} was trained on ${checkpoint.record.baseModel}, whose ${what} ${verb} ${expected}; ` +
        `that of ${plan.model.name} ${verb} ${actual}`,
      "Give the base model that the run began with as --model_name_or_path.",
    );
  }
}

/** A warning where the last bits of the result may differ; undefined where they cannot. */
export function machineWarning({ folder, machine }: Checkpoint, found: Machine): string | undefined {
  const differences = (Object.keys(found) as (keyof Machine)[])
    .filter((key) => machine[key] !== found[key])
    .map((key) => `${MACHINE_WORDS[key]} ${machine[key]}, now ${found[key]}`);
  if (differences.length === 0) return undefined;
  return `${folder} was written with ${differences.join("; ")}: the result may differ in its last bits`;
}

const MACHINE_WORDS: Record<keyof Machine, string> = {
  device: "device",
  threads: "threads",
  cpuKernels: "vector kernels",
  torchVersion: "libtorch",
  microBatchTokens: "micro-batch tokens",
};

/**
 * Holds the options of a run against the checkpoint's: what can be said before anything is read.
 * @throws CHECKPOINT_MISMATCH naming every option that differs.
 */
export function requireSameOptions({ folder, identity }: Checkpoint, options: ResolvedTrainOptions): void {
  const differences: string[] = [];
  for (const [name, value] of Object.entries(fixedOptions(options))) {
    // An option that is newer than the checkpoint was at its default.
    const was = name in identity.options ? identity.options[name] : TRAIN_OPTIONS[name as OptionName].default;
    if (JSON.stringify(was) !== JSON.stringify(value)) {
      differences.push(`--${name} was ${JSON.stringify(was)} and is ${JSON.stringify(value)}`);
    }
  }
  if (differences.length === 0) return;
  throw mismatch(
    `${folder} is of a run with other settings: ${differences.join("; ")}`,
    "Go on with the settings of that run, or start a new one in another --output_dir.",
  );
}

function requireSameSchedule(
  { folder, identity, state }: Checkpoint,
  options: ResolvedTrainOptions,
  found: RunIdentity,
): void {
  const type = options.lrSchedulerType;
  if (identity.totalSteps !== found.totalSteps && needsTotalSteps(type)) {
    throw mismatch(
      `${folder} is of a run of ${identity.totalSteps} steps, this one has ${found.totalSteps}; ` +
        `the learning rates of --lr_scheduler_type=${type} depend on that`,
      "Keep --num_train_epochs and --max_train_steps; only runs with a constant rate or inverse_sqrt can be made longer or shorter.",
    );
  }
  if (found.totalSteps < state.step) {
    throw mismatch(
      `${folder} is of step ${state.step}, beyond the ${found.totalSteps} steps of this run`,
      "Raise --num_train_epochs or --max_train_steps, or go on from an earlier checkpoint.",
    );
  }
  if (identity.warmupSteps !== found.warmupSteps) {
    throw mismatch(
      `${folder} is of a run with ${identity.warmupSteps} steps of warm-up, this one has ${found.warmupSteps}`,
      "Keep --num_warmup_steps and --warmup_ratio.",
    );
  }
}

function requireSameData({ folder, identity }: Checkpoint, found: RunIdentity, data: TrainData): void {
  for (const [flag, file, was, is] of [
    ["--dataset_name", data.training.path, identity.trainSha256, found.trainSha256],
    ["--eval_dataset_name", data.evaluation?.path, identity.evalSha256, found.evalSha256],
    ["--keep_dataset", data.kept?.path, identity.keepSha256 ?? null, found.keepSha256 ?? null],
  ] as const) {
    if (was === is) continue;
    const now = is === null ? "this run has no such file" : `that of ${file} is ${is}`;
    throw mismatch(
      `${folder} is of a run whose ${flag} ${was === null ? "was not given" : `has SHA-256 ${was}`}; ${now}`,
      "Go on with the files of that run, or start a new one in another --output_dir.",
    );
  }
}

function mismatch(message: string, hint: string): PeftTrainError {
  return new PeftTrainError("CHECKPOINT_MISMATCH", message, { hint });
}
