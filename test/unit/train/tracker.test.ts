import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { type LabelMetrics, type TrainEvent, type TrainOptions, train } from "../../../lib/index.js";
import { readEvents, type ScalarEvent } from "../../support/event-file.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { writePairs } from "../../support/pairs-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
let runs = 0;

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("pairs.csv"), 30);
});

async function run(changes: Partial<TrainOptions>): Promise<{ folder: string; events: TrainEvent[] }> {
  const folder = temporary.path(`out${runs++}`);
  const options = {
    modelNameOrPath: temporary.path("model"),
    datasetName: temporary.path("pairs.csv"),
    evalDatasetName: temporary.path("pairs.csv"),
    outputDir: folder,
    maxLength: 40,
    perDeviceTrainBatchSize: 10,
    numTrainEpochs: 2,
    loggingSteps: 2,
    ...changes,
  };
  const events: TrainEvent[] = [];
  for await (const event of train(options, { engine: () => new FakeEngine() })) events.push(event);
  return { folder: options.outputDir, events };
}

function tracked(folder: string): ScalarEvent[] {
  const names = readdirSync(folder);
  expect(names).toHaveLength(1);
  return readEvents(join(folder, names[0] as string));
}

describe("tracking", () => {
  it("writes every logged loss and every evaluation to the output folder's runs", async () => {
    const { folder, events } = await run({ withTracking: true, reportTo: "tensorboard" });
    const found = tracked(join(folder, "runs"));
    const kept = events.filter(({ event }) => event === "log" || event === "evaluated");
    expect(found.map(({ step }) => step)).toEqual(kept.map((event) => ("step" in event ? event.step : -1)));
    for (const [i, event] of kept.entries()) {
      const { values } = found[i] as ScalarEvent;
      if (event.event === "log") {
        expect(values["train/loss"]).toBe(Math.fround(event.loss));
        expect(values["train/learning_rate"]).toBe(Math.fround(event.learningRate));
      } else if (event.event === "evaluated") {
        expect(values["eval/roc_auc"]).toBe(Math.fround((event.metrics as LabelMetrics).rocAuc as number));
      }
    }
    expect(kept.length).toBe(3 + 3);
  });

  it("goes to a folder of its own where one is named, and is replaced with its run where not", async () => {
    const loggingDir = temporary.path("board", "first");
    const { folder } = await run({ reportTo: "tensorboard", loggingDir });
    expect(tracked(loggingDir).length).toBeGreaterThan(0);
    expect(existsSync(join(folder, "runs"))).toBe(false);
    const earlier = await run({ reportTo: "tensorboard" });
    await run({ reportTo: "tensorboard", outputDir: earlier.folder, overwriteOutputDir: true });
    expect(tracked(join(earlier.folder, "runs"))).toHaveLength(6);
    await run({ outputDir: earlier.folder, overwriteOutputDir: true });
    expect(existsSync(join(earlier.folder, "runs"))).toBe(false);
  });

  it("is off unless it is asked for", async () => {
    for (const off of [{}, { withTracking: true, reportTo: "none" }] as const) {
      const { folder } = await run(off);
      expect(existsSync(join(folder, "runs"))).toBe(false);
    }
  });

  it("for Weights & Biases goes to an offline run, with the options and without the token", async () => {
    vi.stubEnv("WANDB_DIR", temporary.path("board"));
    vi.stubEnv("WANDB_PROJECT", "mine");
    const { folder, events } = await run({ reportTo: "wandb", hubToken: "hf_secret" });
    vi.unstubAllEnvs();
    expect(existsSync(join(folder, "runs"))).toBe(false);
    const place = events.find(({ event }) => event === "tracking");
    const written = place?.event === "tracking" ? place.path : "";
    expect(written).toMatch(/board\/wandb\/offline-run-\d{8}_\d{6}-[0-9a-f]{8}$/);
    const name = readdirSync(written).find((entry) => entry.endsWith(".wandb")) ?? "";
    const content = readFileSync(join(written, name));
    for (const text of ["mine", "learning_rate", "train/loss", "eval/roc_auc"])
      expect(content.includes(text)).toBe(true);
    expect(content.includes("hf_secret")).toBe(false);
  });

  it("leaves nothing where the data cannot be read", async () => {
    vi.stubEnv("WANDB_DIR", temporary.path("never"));
    await expect(run({ reportTo: "all", datasetName: temporary.path("none.csv") })).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
    });
    vi.unstubAllEnvs();
    expect(existsSync(temporary.path("never"))).toBe(false);
  });
});
