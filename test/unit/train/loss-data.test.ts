import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { writeNpy } from "../../../lib/data/npy.js";
import type { TrainEvent } from "../../../lib/train/events.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { writePairs } from "../../support/pairs-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
let runs = 0;
const at = (values: Int32Array, i: number): number => values[i] as number;

/** Rows of anchor, positive, two negatives and a score, as JSON lines. */
function writeTriplets(name: string, count: number, keys: readonly string[]): void {
  const lines = Array.from({ length: count }, (_, i) => {
    const row: Record<string, unknown> = {
      question1: `a b ${"c ".repeat(i % 5)}`,
      question2: `b ${"c ".repeat(i % 7)}`,
      far: `x y ${"z ".repeat(i % 3)}`,
      farther: "p q",
      score: (i % 4) / 4,
      is_duplicate: i % 2,
    };
    return JSON.stringify(Object.fromEntries(keys.map((key) => [key, row[key]])));
  });
  writeFileSync(temporary.path(name), lines.join("\n"));
}

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("pairs.csv"), 24);
  writeTriplets("triplets.jsonl", 20, ["question1", "question2", "far", "farther"]);
  writeTriplets("scores.jsonl", 20, ["question1", "question2", "score"]);
  writeTriplets("plain.jsonl", 20, ["question1", "question2"]);
  writeFileSync(temporary.path("zeros.csv"), "question1,question2,is_duplicate\na,b,0\nc,d,0\n");
  writeFileSync(temporary.path("equal.csv"), "question1,question2,score\na,b,0.5\nc,d,0.5\n");
});

async function run(file: string, changes: Partial<TrainOptions>) {
  const engine = new FakeEngine();
  const events: TrainEvent[] = [];
  const options = {
    modelNameOrPath: temporary.path("model"),
    datasetName: temporary.path(file),
    outputDir: temporary.path(`out-${runs++}`),
    perDeviceTrainBatchSize: 8,
    numTrainEpochs: 1,
    ...changes,
  };
  for await (const event of train(options, { engine: () => engine })) events.push(event);
  const warnings = events.flatMap((event) => (event.event === "warning" ? [event.message] : []));
  const metrics = events.flatMap((event) => (event.event === "evaluated" ? [event.metrics] : []));
  return { engine, warnings, metrics, outputDir: options.outputDir };
}

describe("a run", () => {
  it("hands the loss and whole examples to the engine", async () => {
    const { engine, metrics } = await run("triplets.jsonl", {
      loss: "triplet",
      negativeColumn: ["far"],
      distance: "cosine",
      margin: 0.2,
      evalFraction: 0.25,
    });
    expect(engine.steps.map(({ batch }) => batch.cuSeqlens.length - 1)).toEqual([24, 21]);
    expect(engine.steps[0]?.batch).toMatchObject({ textsPerExample: 3, labels: new Float32Array(0) });
    expect(engine.steps[0]?.options.loss).toEqual({ name: "triplet", distance: "cosine", margin: 0.2 });
    expect(metrics[0]).toEqual({
      triplets: 5,
      tripletAccuracy: expect.any(Number),
      baseCosine: expect.closeTo(1),
    });
  });

  it("of multiple negatives ranking takes pairs with label 1 and measures all", async () => {
    const { engine, warnings, metrics } = await run("pairs.csv", {
      loss: "multiple_negatives_ranking",
      evalDatasetName: temporary.path("pairs.csv"),
    });
    expect(engine.steps.map(({ batch }) => batch.cuSeqlens.length - 1)).toEqual([16]);
    expect(warnings.some((text) => text.startsWith("16 of the 24 pairs of"))).toBe(true);
    expect(metrics[0]).toMatchObject({ pairs: 24, positives: 8, rocAuc: expect.any(Number) });
  });

  it("of multiple negatives ranking takes pairs without labels, and several negatives", async () => {
    const plain = await run("plain.jsonl", { loss: "cached_multiple_negatives_ranking" });
    expect(plain.engine.steps[0]?.batch.textsPerExample).toBe(2);
    expect(plain.warnings).toEqual([]);
    const negatives = await run("triplets.jsonl", {
      loss: "multiple_negatives_ranking",
      negativeColumn: ["farther", "far"],
      evalDatasetName: temporary.path("pairs.csv"),
    });
    expect(negatives.engine.steps[0]?.batch.textsPerExample).toBe(4);
    // The evaluation file has labels and none of the negatives.
    expect(negatives.metrics[0]).toMatchObject({ rocAuc: expect.any(Number) });
  });

  it("of scores reports correlations, and keeps no threshold", async () => {
    const { engine, metrics, outputDir } = await run("scores.jsonl", {
      loss: "cosent",
      scoreColumn: "score",
      evalFraction: 0.3,
    });
    expect(engine.steps[0]?.batch.labels).toHaveLength(8);
    expect(metrics[0]).toEqual({
      pairs: 6,
      spearman: expect.any(Number),
      pearson: expect.any(Number),
      baseCosine: expect.closeTo(1),
    });
    const record = JSON.parse(readFileSync(path.join(outputDir, "peft_train.json"), "utf8"));
    expect(record.threshold).toBeNull();
  });

  it("of mse takes single texts with their vectors, and measures those set aside by theirs", async () => {
    const vectors = Float32Array.from({ length: 20 * 32 }, (_, i) => Math.sin(i));
    await writeNpy(temporary.path("teacher.npy"), vectors, 32);
    const { engine, metrics } = await run("plain.jsonl", {
      loss: "mse",
      teacherEmbeddings: temporary.path("teacher.npy"),
      evalFraction: 0.2,
    });
    expect(engine.steps.map(({ batch }) => batch.labels.length)).toEqual([8 * 32, 8 * 32]);
    const { batch } = engine.steps[0] as (typeof engine.steps)[number];
    expect(batch.textsPerExample).toBe(1);
    // Text i of the file is "a b c ... c" with i % 5 times c: its length tells which vectors may be its.
    const lengths = Array.from({ length: 8 }, (_, i) => at(batch.cuSeqlens, i + 1) - at(batch.cuSeqlens, i));
    const shortest = Math.min(...lengths);
    for (const [i, length] of lengths.entries()) {
      const row = vectors.findIndex((value) => value === batch.labels[32 * i]) / 32;
      expect(row % 5).toBe(length - shortest);
      const target = vectors.subarray(32 * row, 32 * (row + 1));
      expect(batch.labels.subarray(32 * i, 32 * (i + 1))).toEqual(target);
    }
    expect(metrics[0]).toEqual({
      texts: 4,
      teacherCosine: expect.any(Number),
      baseCosine: expect.closeTo(1),
    });
  });

  it("warns of widths that leave out the whole vector", async () => {
    const { warnings, engine } = await run("pairs.csv", { matryoshkaDims: [16, 8] });
    expect(warnings).toContain(
      "--matryoshka_dims leaves out 32: vectors that are not cut are not trained as such",
    );
    expect(engine.steps[0]?.options.loss?.matryoshka?.map(({ dims }) => dims)).toEqual([16, 8]);
  });
});

describe("what is refused", () => {
  const ranking = { loss: "multiple_negatives_ranking" } as const;
  const cases: [string, string, Partial<TrainOptions>, string, string][] = [
    [
      "widths beyond the model's",
      "pairs.csv",
      { matryoshkaDims: [32, 33] },
      "USAGE",
      "33 is wider than the vectors",
    ],
    [
      "no pair with label 1",
      "zeros.csv",
      ranking,
      "DATA_LABEL",
      "all 2 labels in column is_duplicate are 0; --loss=multiple_negatives_ranking trains",
    ],
    [
      "scores that are all alike",
      "equal.csv",
      { loss: "angle", scoreColumn: "score" },
      "DATA_LABEL",
      "all 2 scores in column score are 0.5",
    ],
    [
      "a negative column that is not there",
      "pairs.csv",
      { ...ranking, negativeColumn: ["far"] },
      "DATA_COLUMN",
      'no column "far"',
    ],
    ["labels that are not there", "plain.jsonl", {}, "DATA_COLUMN", 'no column "is_duplicate"'],
    [
      "nothing to measure by",
      "plain.jsonl",
      { ...ranking, evalFraction: 0.2 },
      "USAGE",
      "pairs without labels cannot be measured",
    ],
  ];
  for (const [what, file, changes, code, message] of cases) {
    it(what, async () => {
      await expect(run(file, changes)).rejects.toMatchObject({
        code,
        message: expect.stringContaining(message),
      });
    });
  }
});
