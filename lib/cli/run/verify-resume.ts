import { mkdtemp, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { AtomicFolder } from "../../data/atomic-folder.js";
import { PeftTrainError } from "../../errors.js";
import { sha256 } from "../../model/fingerprint.js";
import { jsonLine } from "../../train/json-line.js";
import { optionsOf } from "../../train/options/option-table.js";
import { resolveOptions } from "../../train/options/options.js";
import { weightsFileFor } from "../../train/output/saved-model.js";
import { takesValue, withoutFlags } from "../arguments.js";
import { bold, count, shortPath, table } from "../display/terminal.js";
import { type FlagValues, requireFlags, textFlag } from "../flags.js";
import { refuseUnavailable } from "../unavailable.js";
import { ChildRun } from "./child-run.js";
import { prepareLibtorch } from "./engine.js";
import { Interrupt } from "./interrupt.js";
import { trainFlags } from "./train.js";

const STEPS = 60;
/** Checkpoints between one kill and the next, about. */
const CHECKPOINTS_A_KILL = 2;

/** Flags that this command sets itself, or that would do something beyond the two runs. */
const OWN_FLAGS = new Set<string>([
  "kills",
  "json",
  "quiet",
  "output_dir",
  "overwrite_output_dir",
  "resume_from_checkpoint",
  "max_train_steps",
  "checkpointing_steps",
  ...optionsOf("Tracking"),
  // The base model may be one that asks for the token.
  ...optionsOf("Hub").filter((name) => name !== "hub_token"),
]);

interface Kill {
  /** Last step that the run told of before it was killed. */
  step: number;
  /** Where that run had begun; null: from the beginning. */
  resumedFrom: number | null;
}

/** `peft-train verify-resume`: exit code 0 where the bytes are the same, 1 where they differ. */
export async function runVerifyResume(args: FlagValues): Promise<void> {
  const typed = args.typed as string[];
  refuseUnavailable(args, typed);
  for (const name of ["resume_from_checkpoint", "overwrite_output_dir"]) {
    if (args[name] !== undefined) {
      throw new PeftTrainError("USAGE", `--${name} has no meaning for verify-resume; it starts its own runs`);
    }
  }
  requireFlags(args, ["model_name_or_path", "dataset_name"], EXAMPLE);
  const kills = killsOf(args);
  const options = resolveOptions({ ...trainFlags(args), output_dir: "whole" });
  const weightsFile = weightsFileFor(options.usePeft);
  const steps = options.maxTrainSteps ?? STEPS;
  if (steps <= kills) {
    throw new PeftTrainError(
      "USAGE",
      `--kills=${kills} needs more than ${kills} steps, found --max_train_steps=${steps}`,
    );
  }
  const every =
    options.checkpointingSteps ?? Math.max(1, Math.floor(steps / (CHECKPOINTS_A_KILL * (kills + 1))));
  await prepareLibtorch(options.device);

  const work = await workFolder(textFlag(args, "output_dir"));
  const flags = withoutFlags(typed.slice(1), OWN_FLAGS, (name) => name === "kills" || takesValue(name));
  const run = (name: string, ...more: string[]): ChildRun =>
    new ChildRun([
      "train",
      ...flags,
      `--max_train_steps=${steps}`,
      `--checkpointing_steps=${every}`,
      `--output_dir=${path.join(work.folder, name)}`,
      "--json",
      ...more,
    ]);
  const note = (text: string): void => void (args.quiet !== true && process.stderr.write(`${text}\n`));
  let running: ChildRun | undefined;
  const interrupted = new AbortController();
  using interrupt = new Interrupt(() => {
    interrupted.abort();
    running?.kill();
  });
  const stopIfAsked = (): void => {
    if (!interrupted.signal.aborted) return;
    process.exitCode = interrupt.exitCode;
    throw new PeftTrainError("ABORTED", "stopped before the two runs could be compared");
  };

  try {
    note(`A run of ${count(steps)} steps that is never stopped`);
    running = run("whole");
    await running.finished().finally(stopIfAsked);
    const done: Kill[] = [];
    for (let i = 0; i < kills; i++) {
      // One in each part of the run, so that every kill finds work that was resumed and work to lose.
      const target = Math.floor(((i + Math.random()) * (steps - 1)) / kills) + 1;
      note(`Kill ${i + 1} of ${kills}: soon after step ${count(target)}`);
      running = run("killed", "--resume_from_checkpoint=latest");
      done.push(await running.killedAfter(target).finally(stopIfAsked));
    }
    note("The last run, to the end");
    running = run("killed", "--resume_from_checkpoint=latest");
    await running.finished().finally(stopIfAsked);
    const [whole, killed] = await Promise.all(
      ["whole", "killed"].map((name) => sha256(path.join(work.folder, name, weightsFile))),
    );
    const same = whole?.hash === killed?.hash;
    const last = { step: steps, resumedFrom: running.resumedFrom };
    if (args.json === true) {
      const result = {
        same,
        steps,
        checkpointingSteps: every,
        kills: done,
        whole: whole?.hash,
        killed: killed?.hash,
      };
      process.stdout.write(`${jsonLine(result)}\n`);
    } else {
      process.stdout.write(
        `${report(done, last)}\n${verdict(same, { file: weightsFile, whole: whole?.hash, killed: killed?.hash }, work.folder)}\n`,
      );
    }
    process.exitCode = same ? 0 : 1;
    if (same) await work.remove();
  } catch (error) {
    await work.remove();
    throw error;
  }
}

const EXAMPLE = "verify-resume --model_name_or_path=models/e5-small-v2 --dataset_name=train.csv";

function killsOf(args: FlagValues): number {
  const text = textFlag(args, "kills") ?? "3";
  const kills = Number(text);
  if (/^\d+$/.test(text) && kills >= 1 && kills <= 1000) return kills;
  throw new PeftTrainError(
    "USAGE",
    `--kills=${text}: expected a whole number of at least 1 and at most 1000`,
  );
}

/** The folder of both runs: --output_dir, which stays, or a temporary one, which goes unless they differ. */
async function workFolder(
  asked: string | undefined,
): Promise<{ folder: string; remove: () => Promise<void> }> {
  if (asked !== undefined) {
    const made = await AtomicFolder.create(asked);
    await made.commit();
    // Only where there is nothing in it yet.
    return { folder: made.path, remove: () => rmdir(made.path).catch(() => {}) };
  }
  const folder = await mkdtemp(path.join(tmpdir(), "peft-train-verify-"));
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

function report(kills: readonly Kill[], last: Kill): string {
  const from = ({ resumedFrom }: Kill): string =>
    resumedFrom === null ? "the beginning" : `step ${count(resumedFrom)}`;
  return table(
    ["Run", "Began at", "Ended at"],
    [
      ["never stopped", "the beginning", `step ${count(last.step)}`],
      ...kills.map((kill, i) => [`kill ${i + 1}`, from(kill), `step ${count(kill.step)}, killed`]),
      ["resumed", from(last), `step ${count(last.step)}`],
    ],
  );
}

function verdict(
  same: boolean,
  { file, whole = "", killed = "" }: { file: string; whole: string | undefined; killed: string | undefined },
  folder: string,
): string {
  if (same) return `${bold("The same bytes")}: ${file} of both has SHA-256 ${whole}`;
  return [
    `${bold("Not the same bytes")}: ${file} has SHA-256 ${whole} in the run that was never stopped, ${killed} in the other.`,
    `Both are kept in ${shortPath(folder)}. Please report this, with the command.`,
  ].join("\n");
}
