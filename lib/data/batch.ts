import type { PairBatch } from "../native/types.js";
import { MT19937 } from "./mt19937.js";
import type { PairDataset } from "./pairs.js";

/**
 * The order in which an epoch reads its pairs: numpy's
 * `RandomState([seed % 2**32, seed // 2**32, epoch]).permutation(count)`, so it depends on nothing else that was drawn.
 */
export function epochOrder(count: number, seed: number, epoch: number): Int32Array {
  return new MT19937([...seedWords(seed), epoch]).permutation(count);
}

/** A seed up to 2^53 as the 32-bit words that MT19937 takes. */
export function seedWords(seed: number): [low: number, high: number] {
  return [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
}

/** Gathers the pairs of `indices`, in that order. */
export function pairBatch(dataset: PairDataset, indices: Int32Array): PairBatch {
  const { offsets } = dataset;
  const cuSeqlens = new Int32Array(2 * indices.length + 1);
  const labels = new Float32Array(indices.length);
  let total = 0;
  for (const [i, pair] of indices.entries()) {
    const start = offsets[2 * pair] as number;
    cuSeqlens[2 * i + 1] = total + (offsets[2 * pair + 1] as number) - start;
    total += (offsets[2 * pair + 2] as number) - start;
    cuSeqlens[2 * i + 2] = total;
    labels[i] = dataset.labels[pair] as number;
  }
  const ids = new Int32Array(total);
  for (const [i, pair] of indices.entries()) {
    // Both texts of a pair lie side by side.
    ids.set(dataset.ids.subarray(offsets[2 * pair], offsets[2 * pair + 2]), cuSeqlens[2 * i] as number);
  }
  return { ids, cuSeqlens, labels };
}
