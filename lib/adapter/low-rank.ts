import { Matrix, QrDecomposition, SingularValueDecomposition } from "ml-matrix";
import { type Factors, product } from "./factors.js";
import { leadingEigenvectors } from "./leading-eigenvectors.js";

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
    return truncateDense(product(factors), outputs, inputs, rank);
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
  return {
    factors: assemble(columns(u), core.diagonal.slice(0, kept), columns(v), { rank, inputs, outputs }),
    lost,
  };
}

/**
 * The same for a matrix without factors [outputs, inputs], row by row: by the eigenvalues of the smaller of D D^T and D^T D, in
 * double precision. Singular values far below the largest (1e-8 of it) are lost, which float32 weights do not hold either.
 */
export function truncateDense(
  values: Float64Array,
  outputs: number,
  inputs: number,
  rank: number,
): Truncated {
  const wide = inputs > outputs;
  const rows = wide ? values : transposed(values, outputs, inputs);
  const [size, length] = wide ? [outputs, inputs] : [inputs, outputs];
  const gram = gramOf(rows, size, length);
  const total = Array.from({ length: size }, (_, i) => gram[i * size + i] as number).reduce(
    (a, b) => a + b,
    0,
  );
  const kept = Math.min(rank, size);
  const { values: squares, vectors } = leadingEigenvectors(gram, size, kept);
  const singular = squares.map((value) => Math.sqrt(Math.max(0, value)));
  const others = vectors.map((vector, k) => {
    const value = singular[k] as number;
    const scale = value > 1e-12 * (singular[0] as number) ? 1 / value : 0;
    const out = new Float64Array(length);
    for (let i = 0; i < size; i++) {
      const weight = (vector[i] as number) * scale;
      for (let j = 0; j < length; j++)
        out[j] = (out[j] as number) + weight * (rows[i * length + j] as number);
    }
    return out;
  });
  const [left, right] = wide ? [vectors, others] : [others, vectors];
  const sum = singular.reduce((all, value) => all + value * value, 0);
  const factors = assemble(left, singular, right, { rank, inputs, outputs });
  return { factors, lost: Math.sqrt(Math.max(0, total - sum)) };
}

/** Inner products of rows. */
function gramOf(rows: Float64Array, size: number, length: number): Float64Array {
  const gram = new Float64Array(size * size);
  for (let i = 0; i < size; i++) {
    for (let k = 0; k <= i; k++) {
      let sum = 0;
      for (let j = 0; j < length; j++) {
        sum += (rows[i * length + j] as number) * (rows[k * length + j] as number);
      }
      gram[i * size + k] = sum;
      gram[k * size + i] = sum;
    }
  }
  return gram;
}

function transposed(values: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j] as number;
  }
  return out;
}

/** U S as B, V^T as A, filled up with zeros to `rank`. The sign of a pair of vectors is free: the largest entry of A's row is positive. */
function assemble(
  left: readonly Float64Array[],
  singular: readonly number[],
  right: readonly Float64Array[],
  { rank, inputs, outputs }: Pick<Factors, "rank" | "inputs" | "outputs">,
): Factors {
  const a = new Float64Array(rank * inputs);
  const b = new Float64Array(outputs * rank);
  for (const [k, value] of singular.entries()) {
    const [u, v] = [left[k] as Float64Array, right[k] as Float64Array];
    const largest = v.reduce((best, x) => (Math.abs(x) > Math.abs(best) ? x : best), 0);
    const sign = largest < 0 ? -1 : 1;
    for (let j = 0; j < inputs; j++) a[k * inputs + j] = sign * (v[j] as number);
    for (let i = 0; i < outputs; i++) b[i * rank + k] = sign * value * (u[i] as number);
  }
  return { rank, inputs, outputs, a, b };
}

function columns(matrix: Matrix): Float64Array[] {
  return Array.from({ length: matrix.columns }, (_, k) => Float64Array.from(matrix.getColumn(k)));
}

function matrix(values: Float64Array, rows: number, columns: number): Matrix {
  return Matrix.from1DArray(rows, columns, values as unknown as number[]);
}
