import type { ExampleDataset } from "../data/examples.js";

/**
 * Number of pairs of `evaluation` that are pairs of `training` too, in either order and whatever their labels: an AUC
 * over pairs that were trained on says little. Pairs are compared by a hash of 53 bits, so among a million pairs one
 * may be counted wrongly in ten thousand runs.
 */
export function countShared(training: ExampleDataset, evaluation: ExampleDataset): number {
  const trained = new Set<number>();
  for (let i = 0; i < training.count; i++) trained.add(pairHash(training, i));
  let shared = 0;
  for (let i = 0; i < evaluation.count; i++) if (trained.has(pairHash(evaluation, i))) shared++;
  return shared;
}

/** Of the first two texts, the same for (a, b) and (b, a); of single texts, the text's. */
function pairHash(dataset: ExampleDataset, example: number): number {
  const first = dataset.textsPerExample * example;
  const second = first + Math.min(1, dataset.textsPerExample - 1);
  const [a, b] = [textHash(dataset, first), textHash(dataset, second)];
  const [low, high] = a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]) ? [a, b] : [b, a];
  const upper = mix(mix(low[0], high[0]), 0x9e3779b1);
  const lower = mix(mix(low[1], high[1]), 0x85ebca6b);
  return upper * 2 ** 21 + (lower >>> 11);
}

/** Two FNV-1a hashes over the ids, from different starts. */
function textHash({ ids, offsets }: ExampleDataset, text: number): [number, number] {
  let first = 0x811c9dc5;
  let second = 0x1b873593;
  for (let i = offsets[text] as number; i < (offsets[text + 1] as number); i++) {
    first = mix(first, ids[i] as number);
    second = mix(second, (ids[i] as number) ^ 0x5bd1e995);
  }
  return [first, second];
}

function mix(hash: number, value: number): number {
  const mixed = Math.imul(hash ^ value, 0x01000193);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}
