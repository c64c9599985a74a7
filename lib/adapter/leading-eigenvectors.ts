import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { philox } from "./dare-mask.js";

export interface Eigenpairs {
  /** Falling. */
  values: number[];
  /** One a row, of length 1. */
  vectors: Float64Array[];
}

/** Below this a whole decomposition takes milliseconds. */
const SMALL = 64;
const MOST_ITERATIONS = 300;
/** Of a residual over the largest eigenvalue. */
const CONVERGED = 1e-12;

/**
 * The largest eigenvalues of a symmetric positive matrix and their vectors, by subspace iteration with Rayleigh and Ritz's projection:
 * for a few of many it is ten times as fast as a whole decomposition, which is what it falls back to where it does not converge.
 * @param matrix [size, size], row by row.
 */
export function leadingEigenvectors(matrix: Float64Array, size: number, count: number): Eigenpairs {
  const width = Math.min(size, count + Math.max(8, count));
  const found = size > SMALL && 3 * width < size ? iterate(matrix, size, count, width) : undefined;
  return found ?? decompose(matrix, size, count);
}

function decompose(matrix: Float64Array, size: number, count: number): Eigenpairs {
  const eigen = new EigenvalueDecomposition(Matrix.from1DArray(size, size, matrix as unknown as number[]), {
    assumeSymmetric: true,
  });
  const { realEigenvalues: rising, eigenvectorMatrix } = eigen;
  const order = Array.from({ length: Math.min(count, size) }, (_, i) => size - 1 - i);
  return {
    values: order.map((i) => rising[i] as number),
    vectors: order.map((i) => Float64Array.from(eigenvectorMatrix.getColumn(i))),
  };
}

function iterate(matrix: Float64Array, size: number, count: number, width: number): Eigenpairs | undefined {
  let vectors = orthonormal(startingVectors(size, width));
  for (let i = 0; i < MOST_ITERATIONS; i++) {
    const images = vectors.map((vector) => multiply(matrix, size, vector));
    const projected = vectors.map((vector) => images.map((image) => dot(vector, image)));
    const { eigenvectorMatrix, realEigenvalues } = new EigenvalueDecomposition(new Matrix(projected), {
      assumeSymmetric: true,
    });
    const order = Array.from({ length: width }, (_, k) => width - 1 - k);
    const values = order.map((k) => realEigenvalues[k] as number);
    const rotate = (from: readonly Float64Array[]): Float64Array[] =>
      order.map((k) => combination(from, eigenvectorMatrix.getColumn(k)));
    const [ritz, ritzImages] = [rotate(vectors), rotate(images)];
    const limit = CONVERGED * (values[0] as number);
    const residual = (k: number): number => {
      const [vector, image] = [ritz[k] as Float64Array, ritzImages[k] as Float64Array];
      return Math.sqrt(
        vector.reduce((sum, x, j) => sum + ((image[j] as number) - (values[k] as number) * x) ** 2, 0),
      );
    };
    if (Array.from({ length: count }, (_, k) => residual(k)).every((size) => size <= limit)) {
      return { values: values.slice(0, count), vectors: ritz.slice(0, count) };
    }
    vectors = orthonormal(ritzImages);
  }
  return undefined;
}

/** The same for the same sizes: a result must not change from run to run. */
function startingVectors(size: number, width: number): Float64Array[] {
  const words = new Uint32Array(4);
  return Array.from({ length: width }, (_, k) =>
    Float64Array.from({ length: size }, (_, j) => {
      philox(Uint32Array.of(j, k, 0, 0), [0, 0], words);
      return (words[0] as number) / 2 ** 32 - 0.5;
    }),
  );
}

/** Gram and Schmidt, twice: once leaves what a near-dependent set has lost. */
function orthonormal(vectors: Float64Array[]): Float64Array[] {
  for (let pass = 0; pass < 2; pass++) {
    for (const [k, vector] of vectors.entries()) {
      for (const before of vectors.slice(0, k)) {
        const along = dot(before, vector);
        for (let j = 0; j < vector.length; j++)
          vector[j] = (vector[j] as number) - along * (before[j] as number);
      }
      const norm = Math.sqrt(dot(vector, vector));
      if (norm > 0) for (let j = 0; j < vector.length; j++) vector[j] = (vector[j] as number) / norm;
    }
  }
  return vectors;
}

function multiply(matrix: Float64Array, size: number, vector: Float64Array): Float64Array {
  const out = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let j = 0; j < size; j++) sum += (matrix[i * size + j] as number) * (vector[j] as number);
    out[i] = sum;
  }
  return out;
}

function combination(vectors: readonly Float64Array[], weights: readonly number[]): Float64Array {
  const out = new Float64Array((vectors[0] as Float64Array).length);
  for (const [k, vector] of vectors.entries()) {
    const weight = weights[k] as number;
    for (let j = 0; j < out.length; j++) out[j] = (out[j] as number) + weight * (vector[j] as number);
  }
  return out;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
