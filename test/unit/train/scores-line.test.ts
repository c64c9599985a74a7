import { describe, expect, it } from "vitest";
import type { ExampleDataset } from "../../../lib/data/examples.js";
import { rocAuc } from "../../../lib/metrics/roc.js";
import { type EvalMetrics, metricsOf } from "../../../lib/train/evaluation/evaluate.js";
import { highest, scoresLine } from "../../../lib/train/evaluation/scores-line.js";
import { mulberry32 } from "../../support/tiny-model.js";

function dataset(kind: ExampleDataset["kind"], labels: number[], textsPerExample = 2): ExampleDataset {
  const rest = {
    path: "x.csv",
    sha256: "",
    positives: 0,
    ids: new Int32Array(0),
    offsets: new Float64Array(1),
  };
  return { kind, textsPerExample, count: labels.length, labels: Float32Array.from(labels), ...rest };
}

function lineOf(data: ExampleDataset, scores: number[], metrics = {} as EvalMetrics) {
  const evaluated = { event: "evaluated", epoch: 1, step: 5, metrics, seconds: 1 } as const;
  return scoresLine(evaluated, data, Float32Array.from(scores));
}

describe("of labelled pairs", () => {
  const random = mulberry32(3);
  const labels = Array.from({ length: 5000 }, () => (random() < 0.3 ? 1 : 0));
  const scores = Float32Array.from(labels, (label) => Math.fround(Math.min(1, random() * 0.8 + 0.2 * label)));
  const metrics = metricsOf(scores, Float32Array.from(labels));
  const { distribution, worst } = lineOf(dataset("labels", labels), [...scores], metrics);
  if (distribution.kind !== "labels") throw new Error(distribution.kind);

  it("the histograms count every pair in the bin of its cosine", () => {
    for (const [label, { first, width, counts }] of [
      [0, distribution.negative],
      [1, distribution.positive],
    ] as const) {
      const expected = new Map<number, number>();
      for (const [i, score] of scores.entries()) {
        if (labels[i] !== label) continue;
        const bin = Math.floor(score / width);
        expected.set(bin, (expected.get(bin) ?? 0) + 1);
      }
      expect(counts.map((found, i) => [first + i, found]).filter(([, found]) => found !== 0)).toEqual(
        [...expected].sort(([a], [b]) => a - b),
      );
    }
  });

  it("a cosine of 1, and what rounding took above it, is in the last bin below 1", () => {
    const { distribution: of } = lineOf(dataset("labels", [1, 1, 1, 0]), [1, 1.0000001, 0.995, -1]);
    if (of.kind !== "labels") throw new Error(of.kind);
    expect(of.positive).toEqual({ first: 99, width: 0.01, counts: [3] });
    expect(of.negative).toEqual({ first: -100, width: 0.01, counts: [1] });
  });

  it("the points of the ROC curve are few, end at its corners and lose hardly any area", () => {
    const { falsePositiveRate: x, truePositiveRate: y, threshold } = distribution.roc;
    expect(x.length).toBeLessThan(250);
    expect([x[0], y[0], threshold[0], x.at(-1), y.at(-1)]).toEqual([0, 0, null, 1, 1]);
    let area = 0;
    const at = (values: number[], i: number): number => values[i] as number;
    for (let i = 1; i < x.length; i++) area += ((at(x, i) - at(x, i - 1)) * (at(y, i) + at(y, i - 1))) / 2;
    expect(Math.abs(area - (rocAuc(scores, labels) as number))).toBeLessThan(1e-3);
  });

  it("the worst are the pairs farthest on the wrong side of the threshold", () => {
    const distance = (i: number) =>
      ((scores[i] as number) - metrics.accuracyThreshold) * (labels[i] === 1 ? -1 : 1);
    const expected = labels.map((_, i) => distance(i)).sort((a, b) => b - a);
    expect(worst.map(({ example }) => distance(example))).toEqual(expected.slice(0, 20));
    expect(worst[0]).toMatchObject({ texts: [0, 1], scores: [scores[worst[0]?.example ?? -1]] });
  });

  it("pairs on the right side are no mistakes", () => {
    const right = lineOf(dataset("labels", [1, 0, 1, 0]), [0.9, 0.1, 0.8, 0.85], {
      accuracyThreshold: 0.5,
    } as EvalMetrics);
    expect(right.worst.map(({ example }) => example)).toEqual([3]);
  });
});

it("of triplets: margins to every negative, and the nearest one of the worst examples", () => {
  const scores = [0.9, 0.2, 0.95, /* second */ 0.3, 0.7, 0.1];
  const { distribution, worst } = lineOf(dataset("negatives", [0, 0], 4), scores);
  expect(worst).toEqual([
    { example: 1, texts: [0, 1, 2], scores: [Math.fround(0.3), Math.fround(0.7)] },
    { example: 0, texts: [0, 1, 3], scores: [Math.fround(0.9), Math.fround(0.95)] },
  ]);
  if (distribution.kind !== "negatives") throw new Error(distribution.kind);
  expect(distribution.margins.counts.reduce((a, b) => a + b)).toBe(4);
  expect(distribution.margins.first).toBe(-40);
});

it("of scored pairs: quartiles by score, and the pairs whose ranks differ most", () => {
  const { distribution, worst } = lineOf(dataset("scores", [1, 1, 1, 5, 5]), [0.1, 0.2, 0.9, 0.8, 0.7]);
  expect(distribution).toEqual({
    kind: "scores",
    groups: [
      { score: 1, pairs: 3, quartiles: [0.1, 0.2, 0.2] },
      { score: 5, pairs: 2, quartiles: [0.7, 0.7, 0.7] },
    ],
  });
  expect(worst[0]).toMatchObject({ example: 2 });
  const many = Array.from({ length: 100 }, (_, i) => i / 20);
  const spread = lineOf(
    dataset("scores", many),
    many.map((score) => score / 5),
  ).distribution;
  if (spread.kind !== "scores") throw new Error(spread.kind);
  expect(spread.groups).toHaveLength(12);
  expect(spread.groups.reduce((sum, { pairs }) => sum + pairs, 0)).toBe(100);
});

it("of texts: the lowest cosines to the teacher", () => {
  const { distribution, worst } = lineOf(dataset("texts", [0, 0, 0], 1), [0.9, 0.2, 0.5]);
  expect(distribution.kind).toBe("texts");
  expect(worst.map(({ example, texts }) => [example, texts])).toEqual([
    [1, [0]],
    [2, [0]],
    [0, [0]],
  ]);
});

it("no cosine is told above 1, and what is a mistake is told by what was measured", () => {
  const beyond = Math.fround(1 + 2e-7);
  const metrics = { accuracyThreshold: 1 } as EvalMetrics;
  const { worst } = lineOf(dataset("labels", [0, 1]), [beyond, 1], metrics);
  expect(worst).toEqual([
    { example: 0, texts: [0, 1], scores: [1] },
    { example: 1, texts: [0, 1], scores: [1] },
  ]);
  expect(lineOf(dataset("negatives", [0], 3), [0.5, beyond]).worst[0]?.scores).toEqual([0.5, 1]);
});

it("highest takes the first of equal values", () => {
  const values = [1, 3, 3, 2, 3];
  expect(highest(5, (i) => values[i] as number, 2)).toEqual([1, 2]);
  expect(highest(2, (i) => values[i] as number, 5)).toEqual([1, 0]);
});
