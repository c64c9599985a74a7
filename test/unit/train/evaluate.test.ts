import { describe, expect, it } from "vitest";
import type { ExampleDataset } from "../../../lib/data/examples.js";
import { pearson, spearman } from "../../../lib/metrics/correlation.js";
import {
  distinctTexts,
  evaluateExamples,
  metricsOf,
  similarities,
} from "../../../lib/train/evaluation/evaluate.js";
import { countShared } from "../../../lib/train/overlap.js";
import { FakeEngine } from "../../support/fake-engine.js";

function dataset(texts: number[][], labels: number[]): ExampleDataset {
  const offsets = [0];
  for (const text of texts) offsets.push((offsets.at(-1) as number) + text.length);
  return {
    path: "x.csv",
    sha256: "",
    kind: "labels",
    textsPerExample: 2,
    count: labels.length,
    positives: labels.filter((label) => label === 1).length,
    ids: Int32Array.from(texts.flat()),
    offsets: Float64Array.from(offsets),
    labels: Float32Array.from(labels),
  };
}

const A = [1, 2, 3];
const B = [1, 2];
const C = [3];
const EMPTY: number[] = [];

describe("distinct texts", () => {
  it("come once each, with the place of every text among them", () => {
    const { texts, indices } = distinctTexts(dataset([A, B, C, A, B, B, EMPTY, EMPTY], [1, 0, 1, 0]), 0, 8);
    expect([...indices]).toEqual([0, 1, 2, 0, 1, 1, 3, 3]);
    expect([...texts.ids]).toEqual([...A, ...B, ...C]);
    expect([...texts.offsets]).toEqual([0, 3, 5, 6, 6]);
  });

  it("of a part of the set know only that part", () => {
    const { texts, indices } = distinctTexts(dataset([A, B, C, A], [1, 0]), 2, 4);
    expect([...indices]).toEqual([0, 1]);
    expect([...texts.ids]).toEqual([...C, ...A]);
  });

  it("tell apart ids that share bytes", () => {
    const { indices } = distinctTexts(dataset([[1], [256]], [1]), 0, 2);
    expect([...indices]).toEqual([0, 1]);
  });
});

describe("similarities", () => {
  it("are those of the pairs, however the texts are batched", async () => {
    const engine = new FakeEngine();
    const native = await engine.open({
      weightsPath: "",
      shape: { hiddenSize: 16 } as never,
      pooling: "mean",
      device: "cpu",
      threads: 0,
    });
    const random = Array.from({ length: 40 }, (_, i) =>
      Array.from({ length: 1 + (i % 7) }, (_, j) => i * j + 1),
    );
    const set = dataset(random, Array(20).fill(1));
    const all = await similarities(native, set, { batchSize: 1000, adapter: true });
    const few = await similarities(native, set, { batchSize: 1, adapter: true });
    expect(few).toEqual(all);
    const identical = await similarities(native, dataset([A, A, B, A], [1, 0]), {
      batchSize: 8,
      adapter: false,
    });
    expect(identical?.[0]).toBeCloseTo(1, 6);
    expect(identical?.[1]).toBeLessThan(0.999);
  });

  it("end when they are told to", async () => {
    const native = await new FakeEngine().open({ shape: { hiddenSize: 4 } } as never);
    const found = await similarities(native, dataset([A, B], [1]), {
      batchSize: 1,
      adapter: true,
      stopped: () => true,
    });
    expect(found).toBeUndefined();
  });
});

describe("metrics", () => {
  it("hold the loss of training", () => {
    const { loss } = metricsOf(Float32Array.of(0.5, 0.25, -0.5), Float32Array.of(1, 0, 0));
    // (0.5^2 + 0.25^2 + 0) / 3
    expect(loss).toBeCloseTo(0.3125 / 3, 12);
  });

  it("have no AUC for one class, and no other number that is not one", () => {
    const metrics = metricsOf(Float32Array.of(0.5, 0.25), Float32Array.of(1, 1));
    expect(metrics.rocAuc).toBeNull();
    for (const value of Object.values(metrics)) expect(value === null || Number.isFinite(value)).toBe(true);
  });
});

describe("sets of other kinds", () => {
  const measure = async (set: ExampleDataset) =>
    evaluateExamples(await new FakeEngine().open({ shape: { hiddenSize: 16 } } as never), set, {
      batchSize: 2,
      adapter: true,
    });

  it("of scores give correlations with the cosines", async () => {
    const set: ExampleDataset = { ...dataset([A, A, A, B, B, C], [0.9, 0.5, 0.1]), kind: "scores" };
    // Three cosines that fall: 1, between, and that of texts with no token in common.
    const found = await measure(set);
    const cosines = await similarities(
      await new FakeEngine().open({ shape: { hiddenSize: 16 } } as never),
      set,
      { batchSize: 8, adapter: true },
    );
    expect(found).toEqual({
      pairs: 3,
      spearman: spearman(cosines as Float32Array, set.labels),
      pearson: pearson(cosines as Float32Array, set.labels),
    });
    const equal = { ...set, labels: Float32Array.of(1, 1, 1) };
    expect(await measure(equal)).toEqual({ pairs: 3, spearman: null, pearson: null });
  });

  it("of texts with a teacher's vectors give the mean cosine", async () => {
    const native = await new FakeEngine().open({ shape: { hiddenSize: 16 } } as never);
    const own = await native.encode(
      { ids: Int32Array.of(...A, ...B), cuSeqlens: Int32Array.of(0, 3, 5) },
      {
        adapter: true,
        normalize: true,
        microBatchTokens: 100,
      },
    );
    const labels = own.map((value, i) => (i < 16 ? 3 * value : -value));
    const set = { ...dataset([A, B], []), kind: "texts", textsPerExample: 1, count: 2, labels } as const;
    const found = await measure(set);
    expect(found).toEqual({ texts: 2, teacherCosine: expect.closeTo(0, 6) });
    const same = await measure({ ...set, labels: own.map((value) => 2 * value) });
    expect(same).toEqual({ texts: 2, teacherCosine: expect.closeTo(1, 6) });
  });

  it("of triplets count every negative, and a tie as wrong", async () => {
    const kind = { kind: "negatives", labels: new Float32Array(0), count: 2 } as const;
    const triplets = { ...dataset([A, A, C, A, B, B], []), ...kind, textsPerExample: 3 };
    expect(await measure(triplets)).toEqual({ triplets: 2, tripletAccuracy: 0.5 });
    const more = { ...dataset([A, A, C, B, A, C, A, C], []), ...kind, textsPerExample: 4 };
    expect(await measure(more)).toEqual({ triplets: 4, tripletAccuracy: 0.5 });
  });
});

describe("pairs in two sets", () => {
  it("are counted in either order, whatever their labels", () => {
    const training = dataset([A, B, C, A], [1, 0]);
    expect(countShared(training, dataset([B, A, A, C, B, C, A, A], [0, 0, 1, 1]))).toBe(2);
    expect(countShared(training, dataset([[2, 1], A], [1]))).toBe(0);
  });
});
