import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../native/package-root.js";
import type { StepEvent } from "../train/events.js";
import { train } from "../train/train.js";

export interface OneStep {
  pairs: number;
  loss: number;
  gradNorm: number;
  /** Of the whole run: model, tokenizer, step, adapter files. */
  seconds: number;
}

const PAIRS = 32;

/** A real training run of one step on the encoder and the pairs that come with the package, in a temporary folder. */
export async function trainOneStep(device: string): Promise<OneStep> {
  const data = join(PACKAGE_ROOT, "data");
  const folder = await mkdtemp(join(tmpdir(), "peft-train-doctor-"));
  const startedAt = performance.now();
  try {
    const lines = (await readFile(join(data, "pairs", "train.csv"), "utf8")).split("\n"); // one a row: no text has a line end
    await writeFile(join(folder, "train.csv"), `${lines.slice(0, PAIRS + 1).join("\n")}\n`);
    const run = train({
      modelNameOrPath: join(data, "encoder"),
      datasetName: join(folder, "train.csv"),
      outputDir: join(folder, "out"),
      perDeviceTrainBatchSize: PAIRS,
      maxTrainSteps: 1,
      report: false,
      seed: 42,
      device,
    });
    let step: StepEvent | undefined;
    for await (const event of run) if (event.event === "step") step = event;
    await run.result;
    const { loss, gradNorm, pairs } = step as StepEvent;
    return { pairs, loss, gradNorm, seconds: (performance.now() - startedAt) / 1000 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
