import { EigenvalueDecomposition, Matrix, QrDecomposition, SingularValueDecomposition } from "ml-matrix";
import type { Factors } from "./factors.js";

export interface Truncated {
  /** A has orthonormal rows, the largest entry of each positive; B carries the singular values. */
  factors: Factors;
  /** Frobenius norm of what was cut off. */
  lost: number;
}

/**
 * The best approximation of a product by one of `rank` (Eckart and Young), from the QR decompositions of its factors: what is
 * decomposed has the product's rank, not its size.
 */
export function truncateFactors(factors: Factors, rank: number): Truncated {
  const { inputs, outputs, a, b } = factors;
  if (factors.rank > Math.min(inputs, outputs)) {
    return truncateMatrix(matrix(b, outputs, factors.rank).mmul(matrix(a, factors.rank, inputs)), rank);
  }
  const left = new QrDecomposition(matrix(b, outputs, factors.rank));
  const right = new QrDecomposition(matrix(a, factors.rank, inputs).transpose());
  const core = new SingularValueDecomposition(
    left.upperTriangularMatrix.mmul(right.upperTriangularMatrix.transpose()),
    { autoTranspose: true },
  );
  const kept = Math.min(rank, core.diagonal.length);
  const u = left.orthogonalMatrix.mmul(core.leftSingularVectors.subMatrix(0, factors.rank - 1, 0, kept - 1));
  const v = right.orthogonalMatrix.mmul(
    core.rightSingularVectors.subMatrix(0, factors.rank - 1, 0, kept - 1),
  );
  const lost = Math.hypot(...core.diagonal.slice(kept));
  return { factors: assemble(u, core.diagonal.slice(0, kept), v, rank), lost };
}

/** The same for a matrix without factors [outputs, inputs], row by row. */
export function truncateDense(
  values: Float64Array,
  outputs: number,
  inputs: number,
  rank: number,
): Truncated {
  return truncateMatrix(matrix(values, outputs, inputs), rank);
}

/**
 * By the eigenvalues of the smaller of D D^T and D^T D, in double precision: singular values far below the largest (1e-8 of
 * it) are lost, which float32 weights do not hold either, and it takes a fraction of the time of a whole decomposition.
 */
function truncateMatrix(d: Matrix, rank: number): Truncated {
  const wide = d.columns > d.rows;
  const gram = wide ? d.mmul(d.transpose()) : d.transpose().mmul(d);
  const eigen = new EigenvalueDecomposition(gram, { assumeSymmetric: true });
  const values = eigen.realEigenvalues; // rising
  const total = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  const kept = Math.min(rank, values.length);
  const order = Array.from({ length: kept }, (_, i) => values.length - 1 - i);
  const singular = order.map((i) => Math.sqrt(Math.max(0, values[i] as number)));
  const side = eigen.eigenvectorMatrix.subMatrixColumn(order);
  const other = (wide ? d.transpose() : d).mmul(side);
  for (const [i, value] of singular.entries()) {
    const scale = value > 1e-12 * (singular[0] as number) ? 1 / value : 0;
    for (let row = 0; row < other.rows; row++) other.set(row, i, other.get(row, i) * scale);
  }
  const sum = singular.reduce((squares, value) => squares + value * value, 0);
  const factors = wide ? assemble(side, singular, other, rank) : assemble(other, singular, side, rank);
  return { factors, lost: Math.sqrt(Math.max(0, total - sum)) };
}

/** U S as B, V^T as A, filled up with zeros to `rank`. The sign of a pair of vectors is free: the largest entry of A's row is positive. */
function assemble(u: Matrix, singular: readonly number[], v: Matrix, rank: number): Factors {
  const [outputs, inputs] = [u.rows, v.rows];
  const a = new Float64Array(rank * inputs);
  const b = new Float64Array(outputs * rank);
  for (const [k, value] of singular.entries()) {
    const column = v.getColumn(k);
    const largest = column.reduce((best, x) => (Math.abs(x) > Math.abs(best) ? x : best), 0);
    const sign = largest < 0 ? -1 : 1;
    for (let j = 0; j < inputs; j++) a[k * inputs + j] = sign * (column[j] as number);
    for (let i = 0; i < outputs; i++) b[i * rank + k] = sign * value * u.get(i, k);
  }
  return { rank, inputs, outputs, a, b };
}

function matrix(values: Float64Array, rows: number, columns: number): Matrix {
  return Matrix.from1DArray(rows, columns, values as unknown as number[]);
}
