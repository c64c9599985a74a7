import { beforeAll } from "vitest";
import type { TrainEvent } from "../../lib/train/events.js";
import type { TrainOptions } from "../../lib/train/options/options.js";
import type { TrainRun } from "../../lib/train/train.js";
import { writePairs } from "./pairs-file.js";
import { temporaryFolder } from "./temporary-folder.js";
import { type TinyModelOptions, writeTinyModel } from "./tiny-model.js";

/**
 * A model, 23 pairs to train on and 12 to evaluate on, and options that use them, each with a new output folder: two epochs of five steps.
 * @param own What the options of a file's tests have beside those, and how its model is.
 */
export function fakeTraining(own: { options?: Partial<TrainOptions>; model?: TinyModelOptions } = {}) {
  const temporary = temporaryFolder();
  const files = { model: "", pairs: "", evalPairs: "" };
  let count = 0;
  beforeAll(() => {
    files.model = writeTinyModel(temporary.path("model"), own.model);
    files.pairs = writePairs(temporary.path("train.csv"), 23);
    files.evalPairs = writePairs(temporary.path("eval.csv"), 12, 2);
  });
  const newOutput = () => temporary.path(`out-${count++}`);
  const options = (changes: Partial<TrainOptions> = {}): TrainOptions => ({
    modelNameOrPath: files.model,
    datasetName: files.pairs,
    evalDatasetName: files.evalPairs,
    outputDir: newOutput(),
    perDeviceTrainBatchSize: 5,
    numTrainEpochs: 2,
    ...own.options,
    ...changes,
  });
  return { temporary, files, newOutput, options };
}

export async function collect(run: TrainRun): Promise<TrainEvent[]> {
  const events: TrainEvent[] = [];
  for await (const event of run) events.push(event);
  return events;
}

export const ofKind = <K extends TrainEvent["event"]>(events: TrainEvent[], kind: K) =>
  events.filter((event): event is Extract<TrainEvent, { event: K }> => event.event === kind);
