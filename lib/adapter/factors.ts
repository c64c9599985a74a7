import { toldCosine } from "../metrics/cosine.js";

/** A product of two thin matrices, row by row: B [outputs, rank] times A [rank, inputs]. */
export interface Factors {
  rank: number;
  inputs: number;
  outputs: number;
  a: Float64Array;
  b: Float64Array;
}

/** What LoRA adds to one matrix: scale * B A. */
export interface LoraFactors extends Factors {
  /** alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  scale: number;
  /** DoRA: length of every row of W + scale * B A. */
  magnitude?: Float64Array;
  /** lora_bias: what B adds to its product, [outputs]. */
  bias?: Float64Array;
}

/**
 * The weighted sum of several products as one, exactly: A's below one another, each times its weight, and B's side by side.
 * @param weights One for every term, its scale included.
 */
export function concatenate(terms: readonly Factors[], weights: readonly number[]): Factors {
  const { inputs, outputs } = terms[0] as Factors;
  const rank = terms.reduce((sum, term) => sum + term.rank, 0);
  const a = new Float64Array(rank * inputs);
  const b = new Float64Array(outputs * rank);
  let first = 0;
  for (const [i, term] of terms.entries()) {
    const weight = weights[i] as number;
    for (let k = 0; k < term.a.length; k++) a[first * inputs + k] = (term.a[k] as number) * weight;
    for (let row = 0; row < outputs; row++) {
      b.set(term.b.subarray(row * term.rank, (row + 1) * term.rank), row * rank + first);
    }
    first += term.rank;
  }
  return { rank, inputs, outputs, a, b };
}

/** B A, row by row [outputs, inputs]. */
export function product({ rank, inputs, outputs, a, b }: Factors, scale = 1): Float64Array {
  const out = new Float64Array(outputs * inputs);
  for (let i = 0; i < outputs; i++) {
    const row = out.subarray(i * inputs, (i + 1) * inputs);
    for (let k = 0; k < rank; k++) {
      const factor = (b[i * rank + k] as number) * scale;
      if (factor === 0) continue;
      const from = k * inputs;
      for (let j = 0; j < inputs; j++) row[j] = (row[j] as number) + factor * (a[from + j] as number);
    }
  }
  return out;
}

/**
 * Frobenius inner product of two products of the same shape, without forming either: the sum over all entries of
 * (x.B^T y.B) * (x.A y.A^T), two matrices of rank times rank.
 */
export function inner(x: Factors, y: Factors): number {
  const { inputs, outputs } = x;
  let sum = 0;
  for (let p = 0; p < x.rank; p++) {
    for (let q = 0; q < y.rank; q++) {
      let bs = 0;
      for (let i = 0; i < outputs; i++)
        bs += (x.b[i * x.rank + p] as number) * (y.b[i * y.rank + q] as number);
      if (bs === 0) continue;
      let as = 0;
      for (let j = 0; j < inputs; j++)
        as += (x.a[p * inputs + j] as number) * (y.a[q * inputs + j] as number);
      sum += bs * as;
    }
  }
  return sum;
}

/** Two products against each other, by their Frobenius norms. */
export interface Distance {
  normX: number;
  normY: number;
  /** |x - y|: to about 1e-8 of the norms, for it comes from their inner products. */
  difference: number;
  /** Cosine of the two as vectors; 0 where one of them is zero. */
  cosine: number;
}

export function distance(x: Factors, y: Factors): Distance {
  const [xx, yy, xy] = [inner(x, x), inner(y, y), inner(x, y)];
  // Rounding may leave less than nothing of what cancels out.
  const [normX, normY] = [Math.sqrt(Math.max(0, xx)), Math.sqrt(Math.max(0, yy))];
  const norms = normX * normY;
  return {
    normX,
    normY,
    difference: Math.sqrt(Math.max(0, xx + yy - 2 * xy)),
    cosine: norms === 0 ? 0 : toldCosine(xy / norms),
  };
}
