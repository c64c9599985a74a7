import { epochOrder } from "../../data/batch.js";
import type { ExampleDataset } from "../../data/examples.js";
import { embedTexts, gatherTexts, type PackedTexts } from "../../embed.js";
import { PeftTrainError } from "../../errors.js";
import type { NativeEncoder, TokenBatch } from "../../native/types.js";
import type { Places } from "./anchor.js";

/** In place of the number of an epoch: beyond them all, and not that of `splitExamples`. */
const SAMPLE = 2 ** 32 - 2;

/** What embedding asks of the run that it belongs to. */
export interface BaseRun {
  native: NativeEncoder;
  onProgress: (done: number, total: number) => void;
  stopped: () => boolean;
}

/** Vectors of length 1 of the base model, [texts, hidden]. @throws ABORTED when it was stopped. */
export async function baseVectors(
  texts: PackedTexts,
  { native, onProgress, stopped }: BaseRun,
): Promise<Float32Array> {
  const vectors = await embedTexts(native, texts, { adapter: false, normalize: true, onProgress, stopped });
  if (vectors !== undefined) return vectors;
  throw new PeftTrainError("ABORTED", "stopped before training began; nothing was written");
}

/** The texts at some places of every example, and the examples of the others. */
export function splitPlaces(
  dataset: ExampleDataset,
  { first, count }: Places,
): { taken: PackedTexts; rest: ExampleDataset } {
  const each = dataset.textsPerExample;
  const [taken, rest] = [
    new Int32Array(count * dataset.count),
    new Int32Array((each - count) * dataset.count),
  ];
  for (let example = 0; example < dataset.count; example++) {
    for (let place = 0, i = count * example, j = (each - count) * example; place < each; place++) {
      const text = each * example + place;
      if (place >= first && place < first + count) taken[i++] = text;
      else rest[j++] = text;
    }
  }
  return {
    taken: packed(gatherTexts(dataset, taken)),
    rest: { ...dataset, ...packed(gatherTexts(dataset, rest)), textsPerExample: each - count },
  };
}

/** So many of the texts, drawn by the seed, and in the order in which they were drawn. */
export function drawTexts(texts: PackedTexts, most: number, seed: number): PackedTexts {
  const count = texts.offsets.length - 1;
  return packed(gatherTexts(texts, epochOrder(count, seed, SAMPLE).subarray(0, most)));
}

function packed({ ids, cuSeqlens }: TokenBatch): { ids: Int32Array; offsets: Float64Array } {
  return { ids, offsets: Float64Array.from(cuSeqlens) };
}
