import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { averagePrecision } from "../../../lib/metrics/average-precision.js";
import { averageRanks, pearson, spearman } from "../../../lib/metrics/correlation.js";
import { rank } from "../../../lib/metrics/ranking.js";
import { rocAuc, rocCurve } from "../../../lib/metrics/roc.js";
import { summarizeScores } from "../../../lib/metrics/score-summary.js";
import { bestAccuracy, bestF1, matthews } from "../../../lib/metrics/threshold.js";

interface Golden {
  name: string;
  draw?: [seed: number, count: number, levels: number, bias: number];
  scores?: number[];
  labels?: number[];
  dtype: "float32" | "float64";
  rocAuc: number | null;
  averagePrecision: number | null;
  accuracy: { accuracy: number; threshold: number };
  f1: { f1: number; precision: number; recall: number; threshold: number };
  matthews: number;
  pearson: number | null;
  spearman: number | null;
  rocCurve?: [number[], number[], (number | null)[]] | null;
  positive: { mean: number | null; histogram: number[] };
  negative: { mean: number | null; histogram: number[] };
}

const { cases }: { cases: Golden[] } = JSON.parse(
  readFileSync(path.join(import.meta.dirname, "../../fixtures/metrics/golden.json"), "utf8"),
);

/** The same numbers as `draw` in test/fixtures/metrics/make_golden.py. */
function draw(
  seed: number,
  count: number,
  levels: number,
  bias: number,
): { scores: number[]; labels: number[] } {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state;
  };
  const scores: number[] = [];
  const labels: number[] = [];
  for (let i = 0; i < count; i++) {
    const level = Math.floor(((next() >>> 8) * levels) / 2 ** 24);
    const score = (level / levels) * 2 - 1;
    scores.push(score);
    labels.push(next() / 2 ** 32 < 0.4 + (bias * score) / 2 ? 1 : 0);
  }
  return { scores, labels };
}

function data(golden: Golden): { scores: ArrayLike<number>; labels: number[] } {
  const { scores, labels } = golden.draw
    ? draw(...golden.draw)
    : { scores: golden.scores ?? [], labels: golden.labels ?? [] };
  return { scores: golden.dtype === "float32" ? Float32Array.from(scores) : scores, labels };
}

/** Sums in another order differ in their last bits: 1e-12 of a value of order 1. */
function expectClose(found: number | undefined, expected: number | null, tolerance = 1e-12): void {
  if (expected === null) expect(found).toBeUndefined();
  else expect(Math.abs((found ?? Number.NaN) - expected)).toBeLessThan(tolerance);
}

describe.each(cases)("as scikit-learn and sentence-transformers: $name", (golden) => {
  const { scores, labels } = data(golden);

  test("ROC AUC and average precision", () => {
    expectClose(rocAuc(scores, labels), golden.rocAuc);
    expectClose(averagePrecision(scores, labels), golden.averagePrecision);
  });

  test("best accuracy and best F1, with their thresholds", () => {
    const accuracy = bestAccuracy(scores, labels);
    expect(accuracy.threshold).toBe(golden.accuracy.threshold);
    expectClose(accuracy.accuracy, golden.accuracy.accuracy, 1e-15);
    const f1 = bestF1(scores, labels);
    expect(f1.threshold).toBe(golden.f1.threshold);
    expectClose(f1.f1, golden.f1.f1);
    expectClose(f1.precision, golden.f1.precision);
    expectClose(f1.recall, golden.f1.recall);
    expectClose(matthews(scores, labels, f1.threshold), golden.matthews);
  });

  test("what a threshold is said to give is what it gives", () => {
    const measured = (threshold: number) => {
      let [hits, alarms, correct, positives] = [0, 0, 0, 0];
      for (const [i, label] of labels.entries()) {
        const called = (scores[i] as number) >= threshold ? 1 : 0;
        positives += label;
        hits += called * label;
        alarms += called * (1 - label);
        correct += called === label ? 1 : 0;
      }
      return { accuracy: correct / labels.length, f1: hits && (2 * hits) / (hits + alarms + positives) };
    };
    const accuracy = bestAccuracy(scores, labels);
    expect(measured(accuracy.threshold).accuracy).toBe(accuracy.accuracy);
    const f1 = bestF1(scores, labels);
    if (labels.includes(1)) expectClose(measured(f1.threshold).f1, f1.f1);
  });

  test("correlations", () => {
    expectClose(pearson(scores, labels), golden.pearson, 1e-10);
    expectClose(spearman(scores, labels), golden.spearman, 1e-10);
  });

  test("ROC curve", () => {
    if (golden.rocCurve === undefined) return;
    const curve = rocCurve(scores, labels);
    if (golden.rocCurve === null) return expect(curve).toBeUndefined();
    const [falsePositiveRates, truePositiveRates, thresholds] = golden.rocCurve;
    expect(curve?.map((point) => ({ ...point, threshold: point.threshold + 0 }))).toEqual(
      falsePositiveRates.map((falsePositiveRate, i) => ({
        falsePositiveRate,
        truePositiveRate: truePositiveRates[i],
        threshold: (thresholds[i] ?? Infinity) + 0, // no -0
      })),
    );
  });

  test("means and histograms by class", () => {
    const summary = summarizeScores(scores, labels, { bins: 20 });
    for (const kind of ["positive", "negative"] as const) {
      expectClose(summary[kind].mean, golden[kind].mean, 1e-10);
      expect(summary[kind].histogram).toEqual(golden[kind].histogram);
      expect(summary[kind].count).toBe(golden[kind].histogram.reduce((sum, count) => sum + count));
    }
  });
});

describe("against counting every pair", () => {
  test.each([11, 12, 13, 14, 15, 16])("AUC, seed %i", (seed) => {
    const { scores, labels } = draw(seed, 60, seed % 2 ? 6 : 2 ** 24, 0.5);
    let wins = 0;
    let pairs = 0;
    for (const [i, a] of scores.entries()) {
      for (const [j, b] of scores.entries()) {
        if (labels[i] !== 1 || labels[j] !== 0) continue;
        pairs++;
        wins += a > b ? 1 : a === b ? 0.5 : 0;
      }
    }
    expectClose(rocAuc(scores, labels), wins / pairs, 1e-15);
  });

  test.each([21, 22, 23, 24])("no threshold does better, seed %i", (seed) => {
    const { scores, labels } = draw(seed, 50, seed % 2 ? 8 : 2 ** 24, 0.4);
    const correct = (cut: number) => scores.filter((score, i) => (score >= cut ? 1 : 0) === labels[i]).length;
    const best = Math.max(...[...scores, 2].map(correct));
    expect(bestAccuracy(scores, labels).accuracy).toBe(best / 50);
  });
});

describe("the edges", () => {
  test("one class only: AUC and curve are undefined", () => {
    for (const label of [0, 1]) {
      expect(rocAuc([0.1, 0.2], [label, label])).toBeUndefined();
      expect(rocCurve([0.1, 0.2], [label, label])).toBeUndefined();
    }
    expect(averagePrecision([0.1, 0.2], [0, 0])).toBeUndefined();
    expect(averagePrecision([0.1, 0.2], [1, 1])).toBe(1);
  });

  test("order does not matter, and typed arrays are as good as lists", () => {
    const { scores, labels } = draw(31, 500, 40, 0.6);
    const backwards = [Float64Array.from(scores).reverse(), Uint8Array.from(labels).reverse()] as const;
    expect(rocAuc(...backwards)).toBe(rocAuc(scores, labels));
    expect(bestAccuracy(...backwards)).toEqual(bestAccuracy(scores, labels));
    expect(bestF1(...backwards)).toEqual(bestF1(scores, labels));
    expect(averagePrecision(...backwards)).toBe(averagePrecision(scores, labels));
  });

  test("the inputs are left as they were", () => {
    const scores = Float32Array.from([0.3, 0.1, 0.2]);
    rocAuc(scores, [1, 0, 1]);
    spearman(scores, [1, 0, 1]);
    expect(scores).toEqual(Float32Array.from([0.3, 0.1, 0.2]));
  });

  test("0 and -0 are one score", () => {
    expect(rocAuc([0, -0], [1, 0])).toBe(0.5);
    expect(rank([0, -0, -0, 0], [1, 0, 1, 0]).scores).toHaveLength(1);
  });

  test("a million scores in a few seconds", () => {
    const { scores, labels } = draw(41, 1_000_000, 2 ** 24, 0.6);
    const typed = Float64Array.from(scores);
    const start = performance.now();
    const auc = rocAuc(typed, labels);
    bestAccuracy(typed, labels);
    bestF1(typed, labels);
    averagePrecision(typed, labels);
    expect(performance.now() - start).toBeLessThan(15_000);
    expect(auc).toBeGreaterThan(0.6);
  }, 60_000);

  test.each([Number.NaN, Infinity, -Infinity])("a score of %s is refused", (score) => {
    for (const metric of [
      rocAuc,
      averagePrecision,
      bestAccuracy,
      bestF1,
      pearson,
      spearman,
      summarizeScores,
    ]) {
      expect(() => metric([0.1, score], [0, 1])).toThrow(expect.objectContaining({ code: "NOT_FINITE" }));
    }
  });

  test("labels other than 0 and 1, lengths that differ, and nothing at all are refused", () => {
    for (const metric of [rocAuc, rocCurve, averagePrecision, bestAccuracy, bestF1, summarizeScores]) {
      expect(() => metric([0.1, 0.2], [0, 2])).toThrow(expect.objectContaining({ code: "DATA_LABEL" }));
      expect(() => metric([0.1, 0.2], [0])).toThrow(expect.objectContaining({ code: "USAGE" }));
      expect(() => metric([], [])).toThrow(expect.objectContaining({ code: "DATA_EMPTY" }));
    }
    expect(() => pearson([1], [1, 2])).toThrow(expect.objectContaining({ code: "USAGE" }));
  });

  test("a correlation needs two values that vary", () => {
    expect(pearson([], [])).toBeUndefined();
    expect(pearson([1], [2])).toBeUndefined();
    expect(pearson([0.1, 0.1, 0.1], [1, 2, 3])).toBeUndefined();
    expect(spearman([1, 2, 3], [5, 5, 5])).toBeUndefined();
    expect(spearman([1, 2, 3], [1, 10, 1000])).toBeCloseTo(1, 12);
    expect(pearson([1, 2, 3], [-2, -4, -6])).toBeCloseTo(-1, 12);
  });

  test("ranks share ties", () => {
    expect([...averageRanks([3, 1, 3, 2, 3])]).toEqual([4, 1, 4, 2, 4]);
  });

  test("Matthews correlation at thresholds above and below all scores", () => {
    expect(matthews([0.1, 0.9], [0, 1], 2)).toBe(0);
    expect(matthews([0.1, 0.9], [0, 1], -2)).toBe(0);
    expect(matthews([0.1, 0.9], [0, 1], 0.5)).toBe(1);
    expect(matthews([0.1, 0.9], [1, 0], 0.9)).toBe(-1);
  });

  test("scores beyond the range count in the outermost bins", () => {
    const summary = summarizeScores([1.0000001, -1.5, 1, -1, 0], [1, 0, 1, 0, 1], { bins: 4 });
    expect(summary.edges).toEqual([-1, -0.5, 0, 0.5, 1]);
    expect(summary.positive.histogram).toEqual([0, 0, 1, 2]);
    expect(summary.negative.histogram).toEqual([2, 0, 0, 0]);
    expect([summary.negative.lowest, summary.positive.highest]).toEqual([-1.5, 1.0000001]);
    expect(summarizeScores([0.5], [1]).negative).toMatchObject({
      count: 0,
      mean: undefined,
      lowest: undefined,
    });
    expect(() => summarizeScores([1], [1], { bins: 0 })).toThrow(expect.objectContaining({ code: "USAGE" }));
  });
});
