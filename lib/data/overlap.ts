import type { ExampleDataset } from "./examples.js";

/**
 * How many pairs of `other` are also in `dataset`, as the encoder sees them: the same token ids in the same order. A
 * test set that shares pairs with the training set flatters the model.
 */
export function countSharedPairs(dataset: ExampleDataset, other: ExampleDataset): number {
  const known = new Set<string>();
  for (let pair = 0; pair < dataset.count; pair++) known.add(pairKey(dataset, pair));
  let shared = 0;
  for (let pair = 0; pair < other.count; pair++) if (known.has(pairKey(other, pair))) shared++;
  return shared;
}

/** How many pairs of `dataset` repeat an earlier one. */
export function countRepeatedPairs(dataset: ExampleDataset): number {
  const known = new Set<string>();
  for (let pair = 0; pair < dataset.count; pair++) known.add(pairKey(dataset, pair));
  return dataset.count - known.size;
}

/** The bytes of both texts' ids; [CLS] and [SEP] keep the first from running into the second. */
function pairKey(dataset: ExampleDataset, pair: number): string {
  const { ids, offsets } = dataset;
  const start = offsets[2 * pair] as number;
  const end = offsets[2 * pair + 2] as number;
  return Buffer.from(ids.buffer, ids.byteOffset + 4 * start, 4 * (end - start)).toString("latin1");
}
