import { existsSync, readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { PeftTrainError } from "../../../../lib/errors.js";
import { type TenantEvent, type TrainManyRun, trainMany } from "../../../../lib/train/many/train-many.js";
import type { TrainOptions } from "../../../../lib/train/options/options.js";
import { train } from "../../../../lib/train/train.js";
import { FakeEngine } from "../../../support/fake-engine.js";
import { writePairs } from "../../../support/pairs-file.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";
import { writeTinyModel } from "../../../support/tiny-model.js";

const temporary = temporaryFolder();
let model: string;
let evalPairs: string;
const pairs: string[] = [];
let count = 0;

beforeAll(() => {
  model = writeTinyModel(temporary.path("model"));
  evalPairs = writePairs(temporary.path("eval.csv"), 12, 9);
  for (const i of [0, 1, 2]) pairs.push(writePairs(temporary.path(`train-${i}.csv`), 20 + 5 * i, i + 1));
});

const options = (i: number, changes: Partial<TrainOptions> = {}): TrainOptions => ({
  modelNameOrPath: model,
  datasetName: pairs[i] as string,
  evalDatasetName: evalPairs,
  outputDir: temporary.path(`out-${count++}`),
  perDeviceTrainBatchSize: 5,
  numTrainEpochs: 2,
  seed: i,
  ...changes,
});

/** Opens once, and counts how often. */
class CountingEngine extends FakeEngine {
  opens = 0;
  override open(given: Parameters<FakeEngine["open"]>[0]) {
    this.opens++;
    return super.open(given);
  }
}

async function collect(run: TrainManyRun): Promise<TenantEvent[]> {
  const events: TenantEvent[] = [];
  for await (const event of run) events.push(event);
  return events;
}

const files = ["adapter_model.safetensors", "adapter_config.json", "peft_train.json"];
const contents = (folder: string) => files.map((name) => readFileSync(`${folder}/${name}`, "utf8"));

describe("several tenants at once", () => {
  // Of a GPU each asks for its own steps, many at a time.
  it.each(["cpu", "cuda:0"])(
    "leave what each leaves alone, over one base that is opened once, taking turns step by step, on %s",
    async (device) => {
      const tenants = { a: options(0), b: options(1, { learningRate: 1e-3 }), c: options(2, { loraR: 4 }) };
      const engine = new CountingEngine();
      engine.device = device;
      const run = trainMany(tenants, { engine: () => engine });
      const events = await collect(run);
      expect([engine.opens, engine.closed]).toEqual([1, 1]);
      // All of them are at it before the first has ended.
      const turns = engine.steps.map(({ options: step }) => step.adapter);
      const firstEnd = Math.min(...["a", "b", "c"].map((tenant) => turns.lastIndexOf(tenant)));
      expect(new Set(turns.slice(0, firstEnd))).toEqual(new Set(["a", "b", "c"]));
      for (const { tenant, result, error } of await run.outcomes) {
        expect(error, tenant).toBeUndefined();
        const own = tenants[tenant as keyof typeof tenants];
        const alone = { ...own, outputDir: temporary.path(`alone-${count++}`) };
        const single = await train(alone, { engine: () => new FakeEngine() }).result;
        expect(contents(own.outputDir), tenant).toEqual(contents(alone.outputDir));
        expect(result).toEqual({
          ...single,
          outputDir: own.outputDir,
          seconds: expect.any(Number),
          pairsPerSecond: expect.any(Number),
        });
        expect(existsSync(`${own.outputDir}/report.html`)).toBe(true);
        const kinds = events.filter((event) => event.tenant === tenant).map(({ event }) => event);
        expect(kinds.at(-1)).toBe("finished");
        expect(kinds).toContain("started");
      }
    },
  );

  it("go on each from its own checkpoint", async () => {
    const tenants = { a: options(0, { checkpointingSteps: 2 }), b: options(1, { checkpointingSteps: 3 }) };
    const stopping = trainMany(tenants, { engine: () => new FakeEngine() });
    for await (const event of stopping) if (event.event === "step" && event.step === 3) stopping.stop();
    expect((await stopping.outcomes).map(({ result }) => result?.stopped)).toEqual([true, true]);
    const resumed = Object.fromEntries(
      Object.entries(tenants).map(([name, own]) => [name, { ...own, resumeFromCheckpoint: "latest" }]),
    );
    const outcomes = await trainMany(resumed, { engine: () => new FakeEngine() }).outcomes;
    for (const [i, { result }] of outcomes.entries()) {
      const alone = { ...Object.values(tenants)[i], outputDir: temporary.path(`whole-${i}`) } as TrainOptions;
      await train(alone, { engine: () => new FakeEngine() }).result;
      expect(contents(result?.outputDir as string)).toEqual(contents(alone.outputDir));
    }
  });

  it("one that fails on the way ends alone", async () => {
    const engine = new FakeEngine();
    engine.onStep = (step) => {
      if (step === 6) throw new PeftTrainError("NOT_FINITE", "the loss is NaN");
      return undefined;
    };
    const tenants = { long: options(0), short: options(1, { maxTrainSteps: 4 }) };
    const run = trainMany(tenants, { engine: () => engine });
    const [long, short] = await run.outcomes;
    expect(long?.error).toMatchObject({ code: "NOT_FINITE" });
    expect(short?.result).toMatchObject({ steps: 4, stopped: false });
    expect(engine.closed).toBe(1);
  });

  it("train nothing where one of them cannot begin, and say which", async () => {
    for (const [changes, message] of [
      [{ datasetName: "missing.csv" }, /^bad: .*missing\.csv/],
      [{ learningRate: -1 }, /^bad: learningRate=-1: expected/],
      [{ numThreads: 7 }, /^bad: it needs another base than good: threads is 7 here, and 0 there$/],
      [{ loadIn4bit: true }, /^bad: it needs another base than good: storage/],
    ] as const) {
      const engine = new FakeEngine();
      const tenants = { good: options(0), bad: options(1, changes) };
      const run = trainMany(tenants, { engine: () => engine });
      await expect(run.outcomes, String(message)).rejects.toMatchObject({
        message: expect.stringMatching(message),
      });
      expect(engine.steps).toEqual([]);
      expect(existsSync(`${tenants.good.outputDir}/adapter_model.safetensors`)).toBe(false);
    }
  });

  it("need folders apart", async () => {
    const outputDir = temporary.path("shared");
    for (const other of [outputDir, `${outputDir}/inside`]) {
      const tenants = { a: options(0, { outputDir }), b: options(1, { outputDir: other }) };
      await expect(trainMany(tenants, { engine: () => new FakeEngine() }).outcomes).rejects.toMatchObject({
        code: "USAGE",
        message: `b writes to ${other}, and a to ${outputDir}`,
      });
    }
    await expect(trainMany({}).outcomes).rejects.toThrow("expected at least one tenant, found none");
  });

  it("can be stopped one by one", async () => {
    const tenants = { a: options(0), b: options(1) };
    const run = trainMany(tenants, { engine: () => new FakeEngine() });
    for await (const event of run) if (event.event === "step" && event.tenant === "a") run.stop("a");
    expect(() => run.stop("bb")).toThrow('no tenant "bb" is being trained');
    const [a, b] = await run.outcomes;
    expect([a?.result?.stopped, b?.result?.stopped]).toEqual([true, false]);
  });
});
