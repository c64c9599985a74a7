import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import type { TrainEvent } from "../../../lib/train/events.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { writePairs } from "../../support/pairs-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
const TENSOR = "encoder.layer.1.attention.self.query.lora_B";
let runs = 0;

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 20);
});

const options = (changes: Partial<TrainOptions> = {}): TrainOptions => ({
  modelNameOrPath: temporary.path("model"),
  datasetName: temporary.path("train.csv"),
  outputDir: temporary.path(`out-${runs++}`),
  perDeviceTrainBatchSize: 5,
  maxTrainSteps: 8,
  loggingSteps: 1,
  mixedPrecision: "fp16",
  ...changes,
});

/** An engine whose gradients overflow at these steps, from 0. */
function overflowing(at: (step: number) => boolean): FakeEngine {
  const engine = new FakeEngine();
  engine.onStep = (step) =>
    at(step) ? { loss: 0.25, gradNorm: Number.POSITIVE_INFINITY, notFinite: TENSOR } : undefined;
  return engine;
}

const scales = (engine: FakeEngine) => engine.steps.map(({ options: { lossScale } }) => lossScale);

it("a step that overflows is skipped, told of, counted and logged, and halves the scale of the next", async () => {
  const engine = overflowing((step) => step === 1 || step === 2);
  const given = options();
  const skipped: TrainEvent[] = [];
  const run = train(given, { engine: () => engine });
  for await (const event of run) if (event.event === "skipped") skipped.push(event);
  expect(skipped).toEqual([
    { event: "skipped", step: 2, tensor: TENSOR, lossScale: 32_768, skipped: 1 },
    { event: "skipped", step: 3, tensor: TENSOR, lossScale: 16_384, skipped: 2 },
  ]);
  expect(scales(engine)).toEqual([65_536, 65_536, 32_768, ...Array(5).fill(16_384)]);
  const log = readFileSync(join(given.outputDir, "train_log.jsonl"), "utf8");
  expect(log).toContain(`{"event":"skipped","step":2,"tensor":"${TENSOR}","loss_scale":32768,"skipped":1}`);
  // Every line is JSON: infinity is none.
  for (const line of log.trim().split("\n")) expect(() => JSON.parse(line), line).not.toThrow();
});

it("the scale goes on from a checkpoint as it was", async () => {
  const whole = overflowing((step) => step === 1);
  await train(options(), { engine: () => whole }).result;
  const given = options({ checkpointingSteps: 3 });
  await train(given, { engine: () => overflowing((step) => step === 1) }).result;
  const resumed = overflowing(() => false);
  const from = join(given.outputDir, "step_3");
  await train({ ...given, resumeFromCheckpoint: from }, { engine: () => resumed }).result;
  expect(scales(resumed)).toEqual(scales(whole).slice(3));
});

it("overflow after overflow ends the run, with the first tensor that was not finite and what is kept", async () => {
  const engine = overflowing((step) => step >= 4);
  const given = options({ maxTrainSteps: 40, numTrainEpochs: 10 });
  await expect(train(given, { engine: () => engine }).result).rejects.toMatchObject({
    code: "NOT_FINITE",
    // 16 halvings lead from 65,536 to 1.
    message: `step 21 of 40: the gradient of ${TENSOR} overflows float16, down to a loss scale of 1 (${given.outputDir} holds the adapter of step 20)`,
    hint: expect.stringContaining("--mixed_precision=bf16"),
  });
});
