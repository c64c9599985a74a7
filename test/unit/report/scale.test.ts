import { describe, expect, it } from "vitest";
import { axis, rangeOf } from "../../../lib/report/scale.js";

describe("an axis", () => {
  const labels = (...args: Parameters<typeof axis>) => {
    const made = axis(...args);
    return made.ticks.map(made.label);
  };

  it("has round ticks within its range, or ends at them", () => {
    expect(labels([0, 1])).toEqual(["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    expect(labels([0.7117, 0.8144])).toEqual(["0.75", "0.80"]);
    expect(axis([0.7117, 0.8144], { widen: true }).range).toEqual([0.7, 0.85]);
    expect(labels([-0.35, 1], { most: 8 })).toEqual(["-0.2", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
  });

  it("ends at 1 for a cosine that is rounded to a little more", () => {
    expect(axis([0.7765, 1.0000001], { widen: true }).range).toEqual([0.75, 1]);
  });

  it("counts steps and epochs in whole numbers", () => {
    expect(labels([0, 3], { whole: true })).toEqual(["0", "1", "2", "3"]);
    expect(labels([0, 25_000], { whole: true })).toEqual(["0", "5k", "10k", "15k", "20k", "25k"]);
    expect(labels([0, 3_000_000], { whole: true })).toEqual(["0M", "1M", "2M", "3M"]);
  });

  it("shows small rates as one types them", () => {
    expect(labels([0, 5e-4], { widen: true })).toEqual(["0", "1e-4", "2e-4", "3e-4", "4e-4", "5e-4"]);
  });
});

it("a range has some width whatever the values", () => {
  expect(rangeOf([])).toEqual([0, 1]);
  expect(rangeOf([2, 2])).toEqual([1.8, 2.2]);
  expect(rangeOf([0])).toEqual([-1, 1]);
  expect(rangeOf([3, -1, 2])).toEqual([-1, 3]);
});
