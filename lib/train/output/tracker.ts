import path from "node:path";
import { outputError } from "../../data/file-error.js";
import { makeFolder } from "../../data/make-folder.js";
import { EventFile } from "../../tracking/event-file.js";
import { WandbRun, wandbSettings } from "../../tracking/wandb-run.js";
import { VERSION } from "../../version.js";
import type { EvalMetrics } from "../evaluation/evaluate.js";
import type { TrainEvent } from "../events.js";
import { snakeCaseKeys } from "../json-line.js";
import { type ResolvedTrainOptions, writableOptions } from "../options/options.js";
import type { OutputFolder } from "./output.js";

/** Sends losses and metrics of a run to the trackers that were asked for, under the tags of the article's script. */
export class Tracker implements Disposable {
  private constructor(
    private readonly board: EventFile | undefined,
    private readonly wandb: WandbRun | undefined,
  ) {}

  /** @throws OUTPUT_UNWRITABLE */
  static async open(options: ResolvedTrainOptions, output: OutputFolder): Promise<Tracker> {
    // A tracker that was named and stays silent helps nobody: --report_to alone asks for tracking too.
    const asked = options.reportTo ?? (options.withTracking ? "all" : "none");
    const wants = (tracker: string): boolean => asked === tracker || asked === "all";
    const board = wants("tensorboard") ? new EventFile(await eventsFolder(options, output)) : undefined;
    return new Tracker(
      board,
      wants("wandb") ? new WandbRun(wandbSettings(), writableOptions(options), VERSION) : undefined,
    );
  }

  /** Where the run of Weights & Biases is, if there is one. */
  get wandbPath(): string | undefined {
    return this.wandb?.path;
  }

  event(event: TrainEvent): void {
    if (event.event === "log") {
      const { epoch, loss, learningRate, gradNorm, pairsPerSecond } = event;
      this.scalars(event.step, scalars("train", { loss, learningRate, gradNorm, epoch, pairsPerSecond }));
    } else if (event.event === "evaluated") {
      this.scalars(event.step, scalars("eval", event.metrics));
    } else if (event.event === "finished") {
      this.wandb?.finish();
    }
  }

  [Symbol.dispose](): void {
    this.board?.[Symbol.dispose]();
    this.wandb?.[Symbol.dispose]();
  }

  private scalars(step: number, values: Map<string, number>): void {
    this.board?.scalars(step, values);
    this.wandb?.scalars(step, values);
  }
}

async function eventsFolder(options: ResolvedTrainOptions, output: OutputFolder): Promise<string> {
  if (options.loggingDir === null) return output.addEventsFolder();
  const folder = path.resolve(options.loggingDir);
  try {
    await makeFolder(folder);
  } catch (cause) {
    throw outputError(folder, cause);
  }
  return folder;
}

/** Numbers by tag; a metric that is undefined here (null) is left out. */
function scalars(group: string, fields: EvalMetrics | Record<string, number>): Map<string, number> {
  const named = Object.entries(snakeCaseKeys(fields) as Record<string, unknown>);
  return new Map(
    named.flatMap(([name, value]): [string, number][] =>
      typeof value === "number" ? [[`${group}/${name}`, value]] : [],
    ),
  );
}
