import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { epochOrder } from "../../../lib/data/batch.js";
import { TrainLoop } from "../../../lib/train/loop.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { resolveTrainOptions } from "../../../lib/train/options/options.js";
import { learningRateAt } from "../../../lib/train/step/schedule.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { collect, fakeTraining, ofKind } from "../../support/fake-training.js";
import { writePairs } from "../../support/pairs-file.js";

const { temporary, files, newOutput, options } = fakeTraining();

describe("a run", () => {
  it("takes every pair once an epoch, in the seeded order, the last batch short", async () => {
    const engine = new FakeEngine();
    const events = await collect(train(options(), { engine: () => engine }));
    expect(engine.steps.map(({ batch }) => batch.labels.length)).toEqual([5, 5, 5, 5, 3, 5, 5, 5, 5, 3]);
    const labels = readFileSync(files.pairs, "utf8")
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => Number(line.at(-1)));
    for (const epoch of [0, 1]) {
      const seen = engine.steps.slice(5 * epoch, 5 * epoch + 5).flatMap(({ batch }) => [...batch.labels]);
      expect(seen).toEqual([...epochOrder(23, 42, epoch)].map((i) => labels[i]));
    }
    expect(engine.steps.map((step) => step.options.step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(ofKind(events, "started")[0]).toMatchObject({ totalSteps: 10, stepsPerEpoch: 5, epochs: 2 });
    expect(events.at(-1)).toMatchObject({ event: "finished", steps: 10, epochs: 2, stopped: false });
    expect(engine.closed).toBe(1);
  });

  it.each([
    ["generic", false, "cpu", { compute: "int8" }, [/no AVX2: --compute=int8 saves memory/]],
    ["avx2", false, "cpu", { compute: "int8" }, []],
    ["generic", false, "cuda", { compute: "int8" }, []],
    ["generic", false, "cpu", { mixedPrecision: "bf16" }, [/in bf16: it is slower than float32 here$/]],
    ["avx2", false, "cpu", { mixedPrecision: "bf16" }, [/slower than float32 here; faster: --compute=int8$/]],
    ["avx512", true, "cpu", { mixedPrecision: "bf16" }, []],
    [
      "avx512",
      true,
      "cpu",
      { mixedPrecision: "fp16" },
      [/; faster: --mixed_precision=bf16, --compute=int8$/],
    ],
    ["avx2", false, "cuda", { mixedPrecision: "fp16" }, []],
  ] as const)(
    "on %s, bfloat16 %s, %s: warns of what saves no time, %j",
    async (cpuKernels, fastBfloat16, device, given, said) => {
      const engine = new FakeEngine();
      engine.processor = { cpuKernels, fastBfloat16 };
      engine.device = device;
      const events = await collect(train(options({ device, ...given }), { engine: () => engine }));
      const warnings = ofKind(events, "warning")
        .map(({ message }) => message)
        .filter((text) => text.includes("processor"));
      expect(warnings).toEqual(said.map((text) => expect.stringMatching(text)));
    },
  );

  it("hands the engine what the options say", async () => {
    const engine = new FakeEngine();
    const given = options({
      learningRate: 1e-3,
      lrSchedulerType: "cosine",
      numWarmupSteps: 3,
      weightDecay: 0.1,
      adamBeta1: 0.8,
      adamBeta2: 0.9,
      adamEpsilon: 1e-6,
      maxGradNorm: 2,
      seed: 7,
      dropout: 0.25,
      loraR: 4,
      loraAlpha: 2,
      loraDropout: 0.5,
      loraTargetModules: ["dense"],
      pooling: "cls",
      numThreads: 2,
    });
    await train(given, { engine: () => engine }).result;
    expect(engine.opened).toMatchObject({
      pooling: "cls",
      threads: 2,
      device: "cpu",
      shape: { hiddenDropout: 0.25, attentionDropout: 0.25 },
    });
    expect(engine.seed).toBe(7);
    expect(engine.spec?.dropout).toBe(0.5);
    expect(engine.spec?.modules).toHaveLength(7);
    expect(engine.spec?.modules[0]).toEqual({
      name: "encoder.layer.0.attention.output.dense",
      rank: 4,
      scale: 0.5,
    });
    for (const [step, { options: found }] of engine.steps.entries()) {
      expect(found).toMatchObject({
        seed: 7,
        weightDecay: 0.1,
        beta1: 0.8,
        beta2: 0.9,
        epsilon: 1e-6,
        maxGradNorm: 2,
        learningRate: learningRateAt(step, {
          type: "cosine",
          learningRate: 1e-3,
          warmupSteps: 3,
          totalSteps: 10,
          settings: {},
        }),
      });
    }
  });

  it("holds the base model as the options say, and tells what the run will take", async () => {
    const engine = new FakeEngine();
    const given = options({ loadIn4bit: true, bnb4bitUseDoubleQuant: true, numTrainEpochs: 1 });
    const events = await collect(train(given, { engine: () => engine }));
    const storage = {
      format: "nf4",
      blockSize: 64,
      doubleQuant: true,
      outlierFraction: 0,
      outlierThreshold: 6,
    };
    expect(engine.opened?.storage).toEqual(storage);
    const [memory] = ofKind(events, "memory");
    expect(memory).toMatchObject({ storage, peak: 810 + 120 + 51_200, float32Peak: 5000 + 120 + 51_200 });
    expect(events.findIndex(({ event }) => event === "memory")).toBeLessThan(
      events.findIndex(({ event }) => event === "evaluating"),
    );
    const written = (name: string) => readFileSync(join(given.outputDir, name), "utf8");
    expect(written("train_log.jsonl")).toMatch(/^\{"event":"memory",.*"float32_peak":56320\}$/m);
    expect(JSON.parse(written("peft_train.json")).training).toMatchObject({
      base_held_as: { format: "nf4", block_size: 64, double_quant: true },
      options: { load_in_4bit: true, bnb_4bit_use_double_quant: true, quant_block_size: null },
    });
  });

  it("leaves weights in float32 unless it is asked", async () => {
    const engine = new FakeEngine();
    const given = options({ numTrainEpochs: 1 });
    const events = await collect(train(given, { engine: () => engine }));
    expect(engine.opened).not.toHaveProperty("storage");
    expect(ofKind(events, "memory")[0]?.storage).toBeNull();
    const record = JSON.parse(readFileSync(join(given.outputDir, "peft_train.json"), "utf8"));
    expect(record.training.base_held_as).toEqual({ format: "float32" });
  });

  it("gives one step all pairs of the batches that it accumulates", async () => {
    const engine = new FakeEngine();
    await train(options({ gradientAccumulationSteps: 3, numTrainEpochs: 1 }), { engine: () => engine })
      .result;
    expect(engine.steps.map(({ batch }) => batch.labels.length)).toEqual([15, 8]);
  });

  it("puts the prefixes before the texts, each question its own", async () => {
    const lengths = async (changes: Partial<TrainOptions>) => {
      const engine = new FakeEngine();
      const given = options({ numTrainEpochs: 1, perDeviceTrainBatchSize: 23, ...changes });
      await train(given, { engine: () => engine }).result;
      const { cuSeqlens } = engine.steps[0]?.batch ?? expect.fail("no step");
      return [...cuSeqlens.slice(1)].map((end, i) => end - (cuSeqlens[i] as number));
    };
    const none = await lengths({ prefix: "" });
    const first = await lengths({ prefix: "", question1Prefix: "a b c " });
    const both = await lengths({ prefix: "a b " });
    expect(first).toEqual(none.map((length, i) => length + (i % 2 === 0 ? 3 : 0)));
    expect(both).toEqual(none.map((length) => length + 2));
    expect(Math.max(...(await lengths({ maxLength: 8 })))).toBe(8);
  });

  it("evaluates before training and after each epoch, each distinct text once", async () => {
    const engine = new FakeEngine();
    const events = await collect(train(options(), { engine: () => engine }));
    const evaluated = ofKind(events, "evaluated");
    expect(evaluated.map(({ epoch, step }) => [epoch, step])).toEqual([
      [0, 0],
      [1, 5],
      [2, 10],
    ]);
    expect(evaluated[0]?.metrics).toMatchObject({ pairs: 12, positives: 4 });
    const order = events.map((event) => event.event).filter((kind) => kind !== "evaluating");
    expect(order.indexOf("evaluated")).toBeLessThan(order.indexOf("step"));
    expect(engine.encoded[0]?.batch.cuSeqlens.length).toBeLessThanOrEqual(25);
  });

  it("tells of every step, and logs the mean of the loss every logging_steps and at the end", async () => {
    const events = await collect(train(options({ loggingSteps: 4 }), { engine: () => new FakeEngine() }));
    expect(ofKind(events, "step")).toHaveLength(10);
    const logs = ofKind(events, "log");
    expect(logs.map(({ step }) => step)).toEqual([4, 8, 10]);
    const mean = (from: number, to: number) => {
      let sum = 0;
      for (let i = from; i <= to; i++) sum += 1 / i;
      return sum / (to - from + 1);
    };
    expect(logs.map(({ loss }) => loss)).toEqual([mean(1, 4), mean(5, 8), mean(9, 10)]);
  });

  it("does max_train_steps whatever the epochs, and evaluates and saves at its end", async () => {
    for (const [maxTrainSteps, epochs] of [
      [3, 1],
      [12, 3],
    ] as const) {
      const engine = new FakeEngine();
      const result = await train(options({ maxTrainSteps }), { engine: () => engine }).result;
      expect(engine.steps).toHaveLength(maxTrainSteps);
      expect(result).toMatchObject({
        steps: maxTrainSteps,
        epochs,
        stopped: false,
        savedStep: maxTrainSteps,
      });
      expect(result.evaluations.at(-1)?.step).toBe(maxTrainSteps);
    }
  });

  it("is refused when its epochs make more steps than there are numbers for", () => {
    const resolved = resolveTrainOptions(options({ numTrainEpochs: 100_000, perDeviceTrainBatchSize: 1 }));
    const loop = (count: number) =>
      new TrainLoop({ plan: { options: resolved }, data: { training: { count } } } as never);
    expect(() => loop(21_474)).not.toThrow();
    expect(() => loop(21_475)).toThrow(
      expect.objectContaining({
        code: "USAGE",
        message:
          "--num_train_epochs=100000 of 21475 steps are 2147500000 steps; a run has at most 2147483647",
      }),
    );
  });

  it("uses the first 1,024 pairs only with sanity_test", async () => {
    const engine = new FakeEngine();
    const datasetName = writePairs(temporary.path("long.csv"), 1500);
    const given = options({
      datasetName,
      sanityTest: true,
      numTrainEpochs: 1,
      perDeviceTrainBatchSize: 100,
    });
    const [started] = ofKind(await collect(train(given, { engine: () => engine })), "started");
    expect(started).toMatchObject({ trainPairs: 1024, evalPairs: 12, totalSteps: 11 });
  });

  it("sets pairs aside with eval_fraction, and trains without evaluation when told of none", async () => {
    const { evalDatasetName: _, ...rest } = options();
    const fraction = { ...rest, evalFraction: 0.3 };
    const [started] = ofKind(await collect(train(fraction, { engine: () => new FakeEngine() })), "started");
    expect(started).toMatchObject({ trainPairs: 16, evalPairs: 7 });
    const none = { ...rest, outputDir: newOutput() };
    const result = await train(none, { engine: () => new FakeEngine() }).result;
    expect(result.evaluations).toEqual([]);
    expect(JSON.parse(readFileSync(join(none.outputDir, "peft_train.json"), "utf8")).threshold).toBeNull();
  });

  it("warns of pairs that are in both sets", async () => {
    const events = await collect(
      train(options({ evalDatasetName: files.pairs }), { engine: () => new FakeEngine() }),
    );
    expect(ofKind(events, "warning")[0]?.message).toMatch(/^23 of the 23 pairs/);
    expect(ofKind(await collect(train(options(), { engine: () => new FakeEngine() })), "warning")).toEqual(
      [],
    );
  });

  it("warns of a target that no module has beside those that one has", async () => {
    const given = options({ loraTargetModules: ["query", "kye"] });
    const events = await collect(train(given, { engine: () => new FakeEngine() }));
    expect(ofKind(events, "warning")[0]?.message).toMatch(/no module of .* is called kye$/);
  });

  it("writes the same bytes again, all but the times of its log and report", async () => {
    const [first, second] = [options(), options()];
    for (const given of [first, second]) await train(given, { engine: () => new FakeEngine() }).result;
    for (const name of readdirSync(first.outputDir)) {
      if (name === "train_log.jsonl" || name === "report.html") continue;
      const [a, b] = [first, second].map(({ outputDir }) =>
        readFileSync(join(outputDir, name), "latin1").replace(outputDir, "out"),
      );
      expect(a === b, name).toBe(true);
    }
  });
});

describe("stop()", () => {
  it("ends after the step in hand and saves the adapter as it stands", async () => {
    const given = options();
    const run = train(given, { engine: () => new FakeEngine() });
    for await (const event of run) if (event.event === "step" && event.step === 3) run.stop();
    const result = await run.result;
    expect(result.stopped).toBe(true);
    expect(result.steps).toBeLessThan(5);
    expect(result.savedStep).toBe(result.steps);
    const record = JSON.parse(readFileSync(join(given.outputDir, "peft_train.json"), "utf8"));
    expect(record).toMatchObject({ step: result.steps, epoch: 0, threshold: null });
  });

  it("before the first step leaves nothing behind", async () => {
    const given = options();
    const run = train(given, { engine: () => new FakeEngine() });
    for await (const event of run) if (event.event === "started") run.stop();
    expect(await run.result).toMatchObject({ stopped: true, steps: 0, savedStep: null });
    expect(existsSync(given.outputDir)).toBe(false);
  });

  it("while data is read ends without loading the engine", async () => {
    const given = options();
    const run = train(given, { engine: () => expect.fail("the engine was loaded") });
    run.stop();
    await expect(run.result).rejects.toMatchObject({ code: "ABORTED" });
    expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("is what leaving an `await using` block does", async () => {
    const engine = new FakeEngine();
    const given = options({ numTrainEpochs: 100 });
    {
      await using run = train(given, { engine: () => engine });
      for await (const event of run) if (event.event === "step") break;
    }
    expect(engine.closed).toBe(1);
    expect(engine.steps.length).toBeLessThan(500);
  });
});
