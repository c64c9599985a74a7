import { expect, it } from "vitest";
import { concatenate, distance, type Factors, inner } from "../../../lib/adapter/factors.js";

const SIZE = { rank: 3, inputs: 5, outputs: 4 };

/** Entries that are no sums of a few powers of two, so that rounding shows. */
function someFactors(seed: number): Factors {
  const entries = (length: number, from: number): Float64Array =>
    Float64Array.from({ length }, (_, i) => Math.sin(from + 1.7 * i));
  return { ...SIZE, a: entries(15, seed), b: entries(12, seed + 0.3) };
}

it("products that cancel out have a norm of 0 and a cosine of 0, however the sums were rounded", () => {
  let belowZero = 0;
  for (let seed = 0; seed < 200; seed++) {
    const one = someFactors(seed);
    const nothing = concatenate([one, one], [0.7, -0.7]);
    if (inner(nothing, nothing) < 0) belowZero++;
    for (const { normX, normY, difference, cosine } of [distance(nothing, one), distance(one, nothing)]) {
      expect(Math.min(normX, normY)).toBeLessThan(1e-6);
      expect(difference).toBeCloseTo(Math.max(normX, normY), 6);
      expect(Math.abs(cosine)).toBeLessThanOrEqual(1);
    }
  }
  expect(belowZero).toBeGreaterThan(0);
});
