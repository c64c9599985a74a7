import { expect } from "vitest";

type Tensors = Record<string, Float32Array>;

/** Largest |a - b|; infinite where the lengths differ or either is not a number. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    if (!(difference <= worst)) worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
  }
  return worst;
}

export function maxAbs(values: ArrayLike<number>): number {
  return maxDifference(values, new Float32Array(values.length));
}

/** max |a - b| / max |b|; a tensor of zeros has to be met exactly. */
export function relativeDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const difference = maxDifference(a, b);
  return difference === 0 ? 0 : difference / maxAbs(b);
}

/** Compares tensor by tensor, so that a failure names every tensor that is off and by how much. */
export function expectTensors(
  actual: Tensors,
  expected: Tensors,
  tolerance: number,
  distance: (a: Float32Array, b: Float32Array) => number,
): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  const off: Record<string, number> = {};
  for (const [key, reference] of Object.entries(expected)) {
    const found = distance(actual[key] as Float32Array, reference);
    if (!(found <= tolerance)) off[key] = found;
  }
  expect(off, `tensors off by more than ${tolerance}`).toEqual({});
}

/** Bit for bit, without printing thousands of numbers when they differ. */
export function expectSameTensors(actual: Tensors, expected: Tensors): void {
  expectTensors(actual, expected, 0, maxDifference);
}
