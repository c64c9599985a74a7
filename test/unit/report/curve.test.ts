import { describe, expect, it } from "vitest";
import { runCurve, smoothed, thinned } from "../../../lib/report/curve.js";
import type { StepEvent } from "../../../lib/train/events.js";
import { LossCurve } from "../../../lib/train/output/loss-curve.js";

function step(at: number, loss: number): StepEvent {
  const rest = { epoch: 0, gradNorm: 1, pairsPerSecond: 1, secondsLeft: 1 };
  return { event: "step", step: at, loss, learningRate: 1 / at, pairs: 4, ...rest };
}

describe("LossCurve", () => {
  it("has every step of a short run", () => {
    const curve = new LossCurve(3);
    for (const at of [1, 2]) curve.push(step(at, at / 10), 0.5);
    expect(curve.take()).toEqual({
      event: "curve",
      steps: [1, 2],
      losses: [0.1, 0.2],
      learningRates: [1, 0.5],
      pairsPerSecond: [8, 8],
    });
    expect(curve.take()).toBeUndefined();
  });

  it("averages the steps of a long one into about a thousand points, and loses none where it is taken early", () => {
    const curve = new LossCurve(10_000);
    for (let at = 1; at <= 25; at++) curve.push(step(at, at), 2);
    expect(curve.take()).toMatchObject({
      steps: [10, 20, 25],
      losses: [5.5, 15.5, 23],
      pairsPerSecond: [2, 2, 2],
    });
    for (let at = 26; at <= 35; at++) curve.push(step(at, 1), 2);
    expect(curve.take()).toMatchObject({ steps: [35], losses: [1] });
  });
});

describe("a curve that is drawn", () => {
  it("keeps the mean, weighted by steps, when it is thinned", () => {
    const losses = [1, 2, 3, 4, 9];
    const curve = { steps: [10, 20, 30, 31, 41], losses, learningRates: losses, pairsPerSecond: losses };
    const thin = thinned(curve, 3);
    expect(thin.steps).toEqual([20, 31, 41]);
    expect(thin.losses).toEqual([1.5, 3.0909, 9]);
    expect(thinned(curve, 5)).toBe(curve);
  });

  it("is of the logged losses where there is nothing finer", () => {
    const log = {
      event: "log",
      step: 100,
      epoch: 0,
      loss: 0.5,
      learningRate: 1e-3,
      gradNorm: 1,
      pairsPerSecond: 7,
    } as const;
    const empty = { steps: [], losses: [], learningRates: [], pairsPerSecond: [] };
    expect(runCurve({ curve: empty, logs: [log] })).toEqual({
      steps: [100],
      losses: [0.5],
      learningRates: [1e-3],
      pairsPerSecond: [],
      stepsPerPoint: 100,
    });
  });

  it("is smoothed without a pull towards zero at its beginning", () => {
    expect(smoothed([2, 2, 2], 10)).toEqual([2, 2, 2]);
    const [first, second] = smoothed([1, 0], 2);
    expect([first, second]).toEqual([1, 0.33333]);
  });
});
