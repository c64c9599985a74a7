import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { PeftTrainError } from "../../../lib/errors.js";
import type { NativeEncoder } from "../../../lib/native/types.js";
import { metricsOf } from "../../../lib/train/evaluation/evaluate.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { fakeTraining } from "../../support/fake-training.js";

/** ROC AUC after each number of steps; the engine counts them in the adapter's one weight. */
const CURVE = [0.5, 0.55, 0.6, 0.7, 0.65, 0.8, 0.75, 0.7, 0.6, 0.6, 0.6];

vi.mock(import("../../../lib/train/evaluation/evaluate.js"), async (original) => ({
  ...(await original()),
  evaluateExamples: (async (native: NativeEncoder, _: unknown, { stopped }: { stopped?: () => boolean }) => {
    if (stopped?.()) return undefined;
    const [steps] = (await native.adapterWeights()).trained as Float32Array;
    const rocAuc = CURVE[steps as number] as number;
    return { ...metricsOf(Float32Array.of(0.5, 0.1), Float32Array.of(1, 0)), rocAuc };
  }) as never,
}));

const { temporary, options } = fakeTraining({ options: { evalSteps: 1 } });

const start = (given: TrainOptions, engine = new FakeEngine()) => train(given, { engine: () => engine });

async function killedAt(step: number, given: TrainOptions): Promise<void> {
  const engine = new FakeEngine();
  engine.onStep = (at) => {
    if (at === step) throw new PeftTrainError("INTERNAL", "killed");
    return undefined;
  };
  await expect(start(given, engine).result).rejects.toMatchObject({ code: "INTERNAL" });
}

/** Steps that the adapter of a folder was trained for, by its weights and by its record. */
function stepsOf(folder: string): [weights: number, record: number] {
  const bytes = readFileSync(join(folder, "adapter_model.safetensors"));
  const record = JSON.parse(readFileSync(join(folder, "peft_train.json"), "utf8"));
  return [bytes.readFloatLE(bytes.length - 4), record.step];
}

const record = ({ outputDir }: TrainOptions) => readFileSync(join(outputDir, "peft_train.json"), "utf8");
const measuredSteps = (evaluations: readonly { step: number }[]) => evaluations.map(({ step }) => step);

describe("--eval_steps", () => {
  it("measures every N steps and after the last, once a step", async () => {
    const { evaluations } = await start(options({ evalSteps: 3 })).result;
    expect(measuredSteps(evaluations)).toEqual([0, 3, 6, 9, 10]);
    expect(evaluations.map(({ epoch }) => epoch)).toEqual([0, 0, 1, 1, 2]);
    const atEnds = await start(options({ evalSteps: 5 })).result;
    expect(atEnds.evaluations.map(({ step, epoch }) => [step, epoch])).toEqual([
      [0, 0],
      [5, 1],
      [10, 2],
    ]);
    const byEpoch = await start(options({ evalSteps: "epoch" })).result;
    expect(measuredSteps(byEpoch.evaluations)).toEqual([0, 5, 10]);
  });

  it("makes up for what a stop cut short, and a resumed run measures as one that never stopped", async () => {
    const whole = await start(options()).result;
    for (const at of [3, 5]) {
      const given = options();
      const run = start(given);
      for await (const event of run) if (event.event === "step" && event.step === at) run.stop();
      const stopped = await run.result;
      expect(stopped.stopped).toBe(true);
      const resumed = await start({ ...given, resumeFromCheckpoint: "latest" }).result;
      expect(resumed.evaluations).toEqual(whole.evaluations);
    }
  });
});

describe("--load_best_model_at_end", () => {
  it("leaves the best adapter, and result and record say of which step", async () => {
    const given = options({ loadBestModelAtEnd: true });
    const result = await start(given).result;
    expect(result).toMatchObject({ steps: 10, savedStep: 5, stopped: false, stoppedEarly: false });
    expect(result.best).toEqual({ metric: "roc_auc", value: 0.8, step: 5, epoch: 1 });
    expect(stepsOf(given.outputDir)).toEqual([5, 5]);
    expect(JSON.parse(record(given)).training.metrics.roc_auc).toBe(0.8);
    const last = options();
    expect(await start(last).result).toMatchObject({ savedStep: 10, best: { step: 5 } });
    expect(stepsOf(last.outputDir)).toEqual([10, 10]);
  });

  it("goes by the metric and the direction that are asked for", async () => {
    const lowest = options({ loadBestModelAtEnd: true, greaterIsBetter: false });
    expect((await start(lowest).result).best).toMatchObject({ metric: "roc_auc", step: 1 });
    const loss = options({ loadBestModelAtEnd: true, metricForBestModel: "eval_loss" });
    // The loss is the same after every step: the first is the best.
    expect((await start(loss).result).best).toMatchObject({ metric: "loss", step: 1 });
    expect(stepsOf(loss.outputDir)).toEqual([1, 1]);
  });

  it("keeps the last adapter while nothing has been measured", async () => {
    const given = options({ loadBestModelAtEnd: true, evalSteps: 8 });
    const run = start(given);
    for await (const event of run) if (event.event === "step" && event.step === 6) run.stop();
    const { steps } = await run.result;
    expect(stepsOf(given.outputDir)).toEqual([steps, steps]);
    await start({ ...given, resumeFromCheckpoint: "latest" }).result;
    expect(stepsOf(given.outputDir)).toEqual([8, 8]);
  });

  for (const checkpointingSteps of [2, "epoch"] as const) {
    it(`survives a kill at any step, with checkpoints every ${checkpointingSteps}`, async () => {
      const changes = { loadBestModelAtEnd: true, checkpointingSteps, saveTotalLimit: 1 };
      const whole = options(changes);
      const expected = await start(whole).result;
      for (let step = 1; step < 10; step++) {
        const given = options(changes);
        await killedAt(step, given);
        const result = await start({ ...given, resumeFromCheckpoint: "latest" }).result;
        expect(stepsOf(given.outputDir), `killed at ${step}`).toEqual([5, 5]);
        expect(record(given)).toBe(record(whole));
        expect(result.best).toEqual(expected.best);
        expect(result.evaluations).toEqual(expected.evaluations);
        expect(readdirSync(given.outputDir).sort()).toEqual(readdirSync(whole.outputDir).sort());
      }
    });
  }

  it("takes the best along in every checkpoint: pruned, moved or overtaken it comes back", async () => {
    const given = options({ loadBestModelAtEnd: true, checkpointingSteps: 1, saveTotalLimit: 1 });
    await killedAt(8, given);
    const checkpoint = join(given.outputDir, "step_8");
    expect(readdirSync(given.outputDir).filter((name) => name.startsWith("step_"))).toEqual(["step_8"]);
    expect(readdirSync(checkpoint)).toContain("best_adapter_model.safetensors");
    const elsewhere = { ...given, outputDir: temporary.path("elsewhere"), resumeFromCheckpoint: checkpoint };
    await start(elsewhere).result;
    expect(stepsOf(elsewhere.outputDir)).toEqual([5, 5]);

    const overtaken = options({ loadBestModelAtEnd: true, checkpointingSteps: 4 });
    await killedAt(7, overtaken);
    expect(stepsOf(overtaken.outputDir)).toEqual([5, 5]);
    const run = start({ ...overtaken, resumeFromCheckpoint: "latest" });
    for await (const event of run) {
      if (event.event !== "resumed") continue;
      expect(stepsOf(overtaken.outputDir)).toEqual([3, 3]);
    }
    await run.result;
    expect(stepsOf(overtaken.outputDir)).toEqual([5, 5]);
  });

  it("may be resumed when it has finished, and changes nothing", async () => {
    const given = options({ loadBestModelAtEnd: true, checkpointingSteps: "epoch" });
    await start(given).result;
    const before = record(given);
    const result = await start({ ...given, resumeFromCheckpoint: "latest" }).result;
    expect(result).toMatchObject({ savedStep: 5, stopped: false });
    expect(record(given)).toBe(before);
  });
});

describe("--early_stopping_patience", () => {
  it("ends the run, which is no stop, and leaves the last adapter or the best", async () => {
    const engine = new FakeEngine();
    const given = options({ earlyStoppingPatience: 3 });
    const result = await start(given, engine).result;
    // The best is of step 5; 6, 7 and 8 bring nothing.
    expect(result).toMatchObject({ steps: 8, epochs: 1, stopped: false, stoppedEarly: true, savedStep: 8 });
    expect(engine.steps).toHaveLength(8);
    expect(stepsOf(given.outputDir)).toEqual([8, 8]);
    expect(readdirSync(given.outputDir).filter((name) => /^(step|epoch)_/.test(name))).toEqual([]);
    const best = options({ earlyStoppingPatience: 3, loadBestModelAtEnd: true });
    expect(await start(best).result).toMatchObject({ stoppedEarly: true, savedStep: 5 });
  });

  it("counts only gains above the threshold", async () => {
    const given = options({ earlyStoppingPatience: 2, earlyStoppingThreshold: 0.07 });
    // Gains of 0.05 after steps 2; 0.1 after 3, -0.05 after 4, 0.1 after 5, then none.
    expect(await start(given).result).toMatchObject({ steps: 7, best: { step: 5 } });
  });

  it("is counted on by a resumed run from where it stood", async () => {
    for (let step = 1; step < 8; step++) {
      const given = options({ earlyStoppingPatience: 3, loadBestModelAtEnd: true, checkpointingSteps: 1 });
      await killedAt(step, given);
      const result = await start({ ...given, resumeFromCheckpoint: "latest" }).result;
      expect(result, `killed at ${step}`).toMatchObject({ steps: 8, stoppedEarly: true, savedStep: 5 });
      expect(stepsOf(given.outputDir)).toEqual([5, 5]);
    }
  });

  it("has nothing left to do once it has ended, unless there is more of it", async () => {
    const given = options({ earlyStoppingPatience: 3, checkpointingSteps: 1 });
    await start(given).result;
    const engine = new FakeEngine();
    rmSync(join(given.outputDir, "adapter_config.json")); // as a run that was killed before its last save
    const again = await start({ ...given, resumeFromCheckpoint: "latest" }, engine).result;
    expect(again).toMatchObject({ steps: 8, stoppedEarly: true, savedStep: 8 });
    expect(engine.steps).toEqual([]);
    const more = { ...given, earlyStoppingPatience: 9, resumeFromCheckpoint: "latest" };
    expect(await start(more).result).toMatchObject({ steps: 10, stoppedEarly: false, savedStep: 10 });
  });

  it("at an epoch's end ends the run with that epoch's save and checkpoint", async () => {
    const given = options({
      earlyStoppingPatience: 1,
      evalSteps: "epoch",
      checkpointingSteps: "epoch",
      numTrainEpochs: 3,
      maxTrainSteps: 12,
    });
    CURVE.push(0.6, 0.6);
    expect(await start(given).result).toMatchObject({
      steps: 10,
      epochs: 2,
      stoppedEarly: true,
      savedStep: 10,
    });
    expect(readdirSync(given.outputDir)).toContain("epoch_1");
  });
});

describe("what cannot be", () => {
  const refused = (changes: Partial<TrainOptions>) => start(options(changes)).result;

  it("is refused without an evaluation set", async () => {
    for (const [name, changes] of Object.entries({
      evalSteps: {},
      metricForBestModel: { metricForBestModel: "loss" },
      greaterIsBetter: { greaterIsBetter: false },
      loadBestModelAtEnd: { loadBestModelAtEnd: true },
      earlyStoppingPatience: { earlyStoppingPatience: 2 },
    } satisfies Record<string, Partial<TrainOptions>>)) {
      const given = {
        evalDatasetName: null,
        ...(name === "evalSteps" ? {} : { evalSteps: null }),
        ...changes,
      };
      await expect(refused(given)).rejects.toMatchObject({
        code: "USAGE",
        message: `${name}: there is no evaluation set`,
      });
    }
  });

  it("is refused for a threshold without patience, and for metrics that the data has not", async () => {
    await expect(refused({ earlyStoppingThreshold: 0.1 })).rejects.toMatchObject({
      message: "earlyStoppingThreshold=0.1 needs earlyStoppingPatience",
    });
    await expect(refused({ metricForBestModel: "eval_spearman" })).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringMatching(/=eval_spearman: these examples are measured by roc_auc, .*loss$/),
    });
    await expect(refused({ metricForBestModel: "auc" })).rejects.toMatchObject({
      message: expect.stringMatching(/^metricForBestModel=auc: expected one of roc_auc, .*teacher_cosine/),
    });
  });

  it("is refused on resume: another metric, another rhythm", async () => {
    const given = options({ loadBestModelAtEnd: true, checkpointingSteps: 1 });
    await killedAt(4, given);
    await expect(
      refused({ ...given, metricForBestModel: "loss", evalSteps: 2, resumeFromCheckpoint: "latest" }),
    ).rejects.toMatchObject({
      code: "CHECKPOINT_MISMATCH",
      message: expect.stringMatching(
        /--eval_steps was 1 and is 2; --metric_for_best_model was null and is "loss"/,
      ),
    });
  });
});
