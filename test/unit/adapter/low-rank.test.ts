import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { expect, it } from "vitest";
import { inner, product } from "../../../lib/adapter/factors.js";
import { leadingEigenvectors } from "../../../lib/adapter/leading-eigenvectors.js";
import { truncateDense, truncateFactors } from "../../../lib/adapter/low-rank.js";
import { randomFactors, worst } from "../../support/combine-golden.js";
import { mulberry32 } from "../../support/tiny-model.js";

for (const [inputs, outputs, rank] of [
  [9, 7, 5],
  [7, 9, 5],
  [6, 8, 10], // more than either side
] as const) {
  it(`cuts a product of rank ${rank} in [${outputs}, ${inputs}] as a whole decomposition does`, () => {
    const factors = randomFactors(rank, inputs, outputs, 3);
    const dense = product(factors);
    for (const cut of [1, 3]) {
      const thin = truncateFactors(factors, cut);
      const whole = truncateDense(dense, outputs, inputs, cut);
      expect(worst(product(thin.factors), [...product(whole.factors)])).toBeLessThan(1e-10);
      const rest = Math.hypot(...product(thin.factors).map((value, i) => value - (dense[i] as number)));
      expect(thin.lost).toBeCloseTo(rest, 8);
      expect(whole.lost).toBeCloseTo(rest, 8);
      // Rows of A are orthonormal.
      expect(inner({ ...thin.factors, b: thin.factors.b }, thin.factors)).toBeCloseTo(
        Math.hypot(...thin.factors.b) ** 2,
        8,
      );
    }
    expect(truncateFactors(factors, 9).lost).toBeLessThan(1e-7);
  });
}

it("finds the leading eigenvectors of a large matrix as a whole decomposition does", () => {
  const [size, length, count] = [100, 140, 6];
  const random = mulberry32(4);
  const rows = Array.from({ length: size }, (_, i) =>
    // Slowly falling singular values, as those of a trimmed product are.
    Float64Array.from({ length }, () => (random() - 0.5) / (1 + 0.05 * i)),
  );
  const gram = Float64Array.from({ length: size * size }, (_, at) => {
    const [x, y] = [rows[Math.floor(at / size)], rows[at % size]] as [Float64Array, Float64Array];
    return x.reduce((sum, value, k) => sum + value * (y[k] as number), 0);
  });
  const { values, vectors } = leadingEigenvectors(gram, size, count);
  const whole = new EigenvalueDecomposition(Matrix.from1DArray(size, size, [...gram]), {
    assumeSymmetric: true,
  });
  for (let k = 0; k < count; k++) {
    expect(values[k]).toBeCloseTo(whole.realEigenvalues[size - 1 - k] as number, 10);
    const cosine = (vectors[k] as Float64Array).reduce(
      (sum, x, i) => sum + x * whole.eigenvectorMatrix.get(i, size - 1 - k),
      0,
    );
    expect(Math.abs(cosine)).toBeCloseTo(1, 10);
  }
  // Any vectors are eigenvectors of the identity.
  const identity = Float64Array.from({ length: size * size }, (_, at) => Number(at % (size + 1) === 0));
  for (const value of leadingEigenvectors(identity, size, 2).values) expect(value).toBeCloseTo(1, 12);
});
