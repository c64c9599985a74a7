import path from "node:path";
import { outputError } from "../data/file-error.js";
import { makeFolder } from "../data/make-folder.js";
import { EventFile } from "../tracking/event-file.js";
import type { EvalMetrics } from "./evaluate.js";
import type { TrainEvent } from "./events.js";
import { snakeCaseKeys } from "./json-line.js";
import type { ResolvedTrainOptions } from "./options.js";
import type { OutputFolder } from "./output.js";

/** Sends losses and metrics of a run to TensorBoard's event files, under the tags of the article's script. */
export class Tracker implements Disposable {
  private constructor(private readonly file: EventFile) {}

  /** Undefined where nothing is to be tracked. @throws OUTPUT_UNWRITABLE */
  static async open(options: ResolvedTrainOptions, output: OutputFolder): Promise<Tracker | undefined> {
    if (!isTracking(options)) return undefined;
    const folder =
      options.loggingDir === null ? await output.addEventsFolder() : path.resolve(options.loggingDir);
    try {
      await makeFolder(folder);
    } catch (cause) {
      throw outputError(folder, cause);
    }
    return new Tracker(new EventFile(folder));
  }

  event(event: TrainEvent): void {
    if (event.event === "log") {
      const { epoch, loss, learningRate, gradNorm, pairsPerSecond } = event;
      const fields = { loss, learningRate, gradNorm, epoch, pairsPerSecond };
      this.file.scalars(event.step, scalars("train", fields));
    } else if (event.event === "evaluated") {
      this.file.scalars(event.step, scalars("eval", event.metrics));
    }
  }

  [Symbol.dispose](): void {
    this.file[Symbol.dispose]();
  }
}

/** `--report_to` alone asks for tracking too: a tracker that was named and stays silent helps nobody. */
function isTracking({ withTracking, reportTo }: ResolvedTrainOptions): boolean {
  return reportTo === null ? withTracking : reportTo !== "none";
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
