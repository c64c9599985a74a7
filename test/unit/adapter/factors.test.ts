import { expect, it } from "vitest";
import { concatenate, distance, type Factors, inner, product } from "../../../lib/adapter/factors.js";
import { randomFactors, worst } from "../../support/combine-golden.js";

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

const [x, y] = [randomFactors(3, 9, 7, 1), randomFactors(5, 9, 7, 2)];

it("sums exactly", () => {
  const [px, py] = [product(x), product(y)];
  const sum = [...px].map((value, i) => 2 * value - 0.5 * (py[i] as number));
  expect(worst(product(concatenate([x, y], [2, -0.5])), sum)).toBeLessThan(1e-14);
});

it("measures without forming a product", () => {
  const [px, py] = [product(x), product(y)];
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, v, i) => sum + v * (b[i] as number), 0);
  const { normX, normY, difference, cosine } = distance(x, y);
  expect(normX).toBeCloseTo(Math.sqrt(dot(px, px)), 12);
  expect(normY).toBeCloseTo(Math.sqrt(dot(py, py)), 12);
  expect(difference).toBeCloseTo(Math.hypot(...px.map((value, i) => value - (py[i] as number))), 12);
  expect(cosine).toBeCloseTo(dot(px, py) / (normX * normY), 12);
  expect(distance(x, x)).toMatchObject({ difference: 0 });
});
