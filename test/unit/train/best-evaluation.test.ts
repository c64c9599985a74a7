import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it, test } from "vitest";
import { BestEvaluationTracker } from "../../../lib/train/evaluation/best-evaluation.js";
import { bestMetric } from "../../../lib/train/evaluation/best-metric.js";
import type { EvalMetrics } from "../../../lib/train/evaluation/evaluate.js";

interface Golden {
  name: string;
  values: number[];
  greaterIsBetter: boolean;
  patience: number;
  threshold: number;
  steps: number;
  bestStep: number;
  bestValue: number;
}

const { cases }: { cases: Golden[] } = JSON.parse(
  readFileSync(path.join(import.meta.dirname, "../../fixtures/early-stopping/golden.json"), "utf8"),
);

const evaluation = (step: number, spearman: number | null) => ({
  step,
  epoch: 0,
  metrics: { pairs: 1, spearman, pearson: null },
});
const HIGHER = { name: "spearman", greaterIsBetter: true };

describe("as transformers' Trainer and EarlyStoppingCallback", () => {
  test.each(cases)("$name", (golden) => {
    const { values, greaterIsBetter, patience: evaluations, threshold } = golden;
    const tracker = new BestEvaluationTracker({ ...HIGHER, greaterIsBetter }, { evaluations, threshold });
    let step = 0;
    while (step < values.length && !tracker.outOfPatience) {
      step++;
      tracker.see(evaluation(step, values[step - 1] as number));
    }
    expect(step).toBe(golden.steps);
    expect(tracker.best).toMatchObject({ step: golden.bestStep, value: golden.bestValue });
  });
});

describe("the best evaluation", () => {
  it("is none before training, and waits for ever unless told", () => {
    const tracker = new BestEvaluationTracker(HIGHER, { evaluations: null, threshold: 0 });
    expect(tracker.see(evaluation(0, 0.9))).toBe(false);
    expect(tracker.best).toBeUndefined();
    expect(tracker.see(evaluation(5, 0.5))).toBe(true);
    for (let step = 6; step < 60; step++) expect(tracker.see(evaluation(step, 0.5))).toBe(false);
    expect(tracker.best).toEqual({ metric: "spearman", value: 0.5, step: 5, epoch: 0 });
    expect(tracker.outOfPatience).toBe(false);
  });

  it("is none where the metric is undefined, which patience counts once there is a best", () => {
    const tracker = new BestEvaluationTracker(HIGHER, { evaluations: 2, threshold: 0 });
    for (const step of [1, 2, 3]) expect(tracker.see(evaluation(step, null))).toBe(false);
    expect([tracker.best, tracker.outOfPatience]).toEqual([undefined, false]);
    tracker.see(evaluation(4, -0.5));
    for (const step of [5, 6]) tracker.see(evaluation(step, null));
    expect(tracker.best).toMatchObject({ step: 4, value: -0.5 });
    expect(tracker.outOfPatience).toBe(true);
  });
});

describe("the metric", () => {
  const asked = (metricForBestModel: string | null, greaterIsBetter: boolean | null = null) => ({
    metricForBestModel,
    greaterIsBetter,
  });

  it("is that of the kind of data unless told, and higher is better but for a loss", () => {
    expect(bestMetric(asked(null), "labels")).toEqual({ name: "roc_auc", greaterIsBetter: true });
    expect(bestMetric(asked(null), "scores")).toEqual({ name: "spearman", greaterIsBetter: true });
    expect(bestMetric(asked(null), "negatives").name).toBe("triplet_accuracy");
    expect(bestMetric(asked(null), "texts").name).toBe("teacher_cosine");
    expect(bestMetric(asked("loss"), "labels").greaterIsBetter).toBe(false);
    expect(bestMetric(asked("eval_loss", true), "labels")).toEqual({ name: "loss", greaterIsBetter: true });
  });

  it("is found among what an evaluation has, under the name it is logged by", () => {
    const metrics: EvalMetrics = { triplets: 3, tripletAccuracy: 0.25 };
    const tracker = new BestEvaluationTracker(bestMetric(asked("eval_triplet_accuracy"), "negatives"), {
      evaluations: null,
      threshold: 0,
    });
    tracker.see({ step: 1, epoch: 0, metrics });
    expect(tracker.best).toMatchObject({ metric: "triplet_accuracy", value: 0.25 });
  });

  it("of other data is refused with what there is", () => {
    expect(() => bestMetric(asked("eval_roc_auc"), "scores")).toThrow(
      "--metric_for_best_model=eval_roc_auc: these examples are measured by spearman, pearson",
    );
  });
});
