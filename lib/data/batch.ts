import type { ExampleBatch } from "../native/types.js";
import type { ExampleDataset } from "./examples.js";
import { MT19937 } from "./mt19937.js";

/**
 * The order in which an epoch reads its examples: numpy's
 * `RandomState([seed % 2**32, seed // 2**32, epoch]).permutation(count)`, so it depends on nothing else that was drawn.
 */
export function epochOrder(count: number, seed: number, epoch: number): Int32Array {
  return new MT19937([...seedWords(seed), epoch]).permutation(count);
}

/** A seed up to 2^53 as the 32-bit words that MT19937 takes. */
export function seedWords(seed: number): [low: number, high: number] {
  return [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
}

/** Gathers the examples of `indices`, in that order. */
export function exampleBatch(dataset: ExampleDataset, indices: Int32Array): ExampleBatch {
  const { offsets, textsPerExample } = dataset;
  const cuSeqlens = new Int32Array(textsPerExample * indices.length + 1);
  const labelsEach = dataset.count === 0 ? 0 : dataset.labels.length / dataset.count;
  const labels = new Float32Array(labelsEach * indices.length);
  let total = 0;
  for (const [i, example] of indices.entries()) {
    const first = textsPerExample * example;
    const start = offsets[first] as number;
    for (let text = 1; text <= textsPerExample; text++) {
      cuSeqlens[textsPerExample * i + text] = total + (offsets[first + text] as number) - start;
    }
    total = cuSeqlens[textsPerExample * (i + 1)] as number;
    labels.set(dataset.labels.subarray(labelsEach * example, labelsEach * (example + 1)), labelsEach * i);
  }
  const ids = new Int32Array(total);
  for (const [i, example] of indices.entries()) {
    // All texts of an example lie side by side.
    const first = textsPerExample * example;
    const texts = dataset.ids.subarray(offsets[first], offsets[first + textsPerExample]);
    ids.set(texts, cuSeqlens[textsPerExample * i] as number);
  }
  return { ids, cuSeqlens, labels, textsPerExample };
}
