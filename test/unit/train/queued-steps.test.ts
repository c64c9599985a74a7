import { describe, expect, it } from "vitest";
import type { TrainEvent } from "../../../lib/train/events.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { collect, fakeTraining } from "../../support/fake-training.js";

const { options } = fakeTraining();

function engineOn(device: string): FakeEngine {
  const engine = new FakeEngine();
  engine.device = device;
  return engine;
}

/** What does not depend on the clock, the device and the folder. */
const lasting = (events: TrainEvent[]) =>
  events.flatMap((event): unknown[] => {
    if (event.event === "step" || event.event === "log") {
      const { pairsPerSecond: _, ...rest } = event;
      return [{ ...rest, secondsLeft: 0 }];
    }
    return event.event === "evaluated" ? [{ ...event, seconds: 0 }] : [{ event: event.event }];
  });

const asked = (engine: FakeEngine) =>
  engine.steps.map(({ options: { step, seed, learningRate } }) => ({ step, seed, learningRate }));

describe("steps on a GPU", () => {
  it.each([
    [{ loggingSteps: 100 }, [1, 4, 5]],
    [{ loggingSteps: 3 }, [1, 2, 2, 1, 3, 1]],
    [{ loggingSteps: 1 }, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]],
    [{ loggingSteps: 100, checkpointingSteps: 4, evalSteps: 3 }, [1, 2, 1, 1, 1, 2, 1, 1]],
    [{ loggingSteps: 100, maxTrainSteps: 7 }, [1, 4, 2]],
  ])("with %o are waited for after the first, and where something else comes next", async (changes, told) => {
    const cpu = engineOn("cpu");
    const expected = await collect(train(options(changes), { engine: () => cpu }));
    expect(cpu.told).toEqual([]);
    const gpu = engineOn("cuda:0");
    const events = await collect(train(options(changes), { engine: () => gpu }));
    expect(gpu.told).toEqual(told);
    expect(lasting(events)).toEqual(lasting(expected));
    expect(asked(gpu)).toEqual(asked(cpu));
  });

  it("are told up to the one that is not finite, which the error names", async () => {
    const engine = engineOn("cuda:0");
    engine.onStep = (step) => (step === 2 ? { loss: 1, gradNorm: Number.POSITIVE_INFINITY } : undefined);
    const run = train(options({ evalDatasetName: null }), { engine: () => engine });
    const steps: number[] = [];
    await expect(
      (async () => {
        for await (const event of run) if (event.event === "step") steps.push(event.step);
        await run.result;
      })(),
    ).rejects.toMatchObject({
      code: "NOT_FINITE",
      message: expect.stringMatching(/^step 3 of 10: the norm of the gradient is Infinity/),
    });
    expect(steps).toEqual([1, 2]);
  });

  it("that were taken when a run is stopped are kept in its checkpoint", async () => {
    const engine = engineOn("cuda:0");
    const run = train(options({ evalDatasetName: null }), { engine: () => engine });
    engine.onStep = (step) => {
      if (step === 2) run.stop();
      return undefined;
    };
    const result = await run.result;
    expect(result).toMatchObject({ stopped: true, steps: 3, savedStep: 3 });
    expect(result.checkpoint).toMatch(/step_3$/);
    expect(engine.told).toEqual([1, 2]);
  });

  it("with a loss scale are waited for one by one, since each decides the next scale", async () => {
    const engine = engineOn("cuda:0");
    await train(options({ mixedPrecision: "fp16" }), { engine: () => engine }).result;
    expect(engine.told).toEqual([]);
    expect(engine.steps).toHaveLength(10);
  });
});
