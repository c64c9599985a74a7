import { exampleBatch } from "../../data/batch.js";
import type { ExampleDataset } from "../../data/examples.js";
import { gatherTexts, type PackedTexts } from "../../embed.js";
import type { ExampleBatch, FixedTexts, KeptTexts } from "../../native/types.js";
import { distinctTexts } from "../evaluation/evaluate.js";
import { flagLabel } from "../options/option-value.js";
import type { Plan, TrainData } from "../preparation.js";
import { runLength } from "../run-length.js";
import { anchoredPlaces, anchoredSide, type Places } from "./anchor.js";
import { type BaseRun, baseVectors, drawTexts, splitPlaces } from "./base-texts.js";

/** Texts of the sample that `--keep_weight` draws at most: 6 MB of vectors of 384 numbers. */
const KEPT_TEXTS = 4096;

/**
 * What each optimiser step trains on: the examples; of those that are anchored, one side as vectors; and texts to keep in
 * place. Vectors of the base model do not change while a run lasts, so they are computed once a distinct text.
 */
export class TrainBatches {
  private constructor(
    private readonly examples: ExampleDataset,
    private readonly anchored: AnchoredTexts | undefined,
    private readonly kept: KeptSample | undefined,
  ) {}

  /** @throws ABORTED when it was stopped. */
  static async prepare({ options }: Plan, data: TrainData, run: BaseRun): Promise<TrainBatches> {
    const { training } = data;
    const { keepWeight, seed } = options;
    const side = anchoredSide(options, flagLabel);
    const places = side && anchoredPlaces(side, training.textsPerExample);
    const { taken, rest } = places ? splitPlaces(training, places) : { taken: undefined, rest: training };
    const anchored = places && taken && (await AnchoredTexts.embed(taken, places, run));
    const { pairsPerStep } = runLength(options, training.count);
    if (keepWeight === null) return new TrainBatches(rest, anchored, undefined);
    const from = data.kept ?? taken ?? training;
    const { texts } = distinctTexts(from, 0, from.offsets.length - 1);
    const sample = drawTexts(texts, KEPT_TEXTS, seed);
    const kept = new KeptSample(sample, await baseVectors(sample, run), keepWeight, pairsPerStep);
    return new TrainBatches(rest, anchored, kept);
  }

  /** Tokens of an example that go through the encoder, in the mean. */
  get tokensPerExample(): number {
    return this.examples.ids.length / this.examples.count;
  }

  /** The examples of `indices`, for the optimiser step of this number. */
  at(step: number, indices: Int32Array): ExampleBatch {
    const batch: ExampleBatch = exampleBatch(this.examples, indices);
    if (this.anchored !== undefined) {
      batch.fixed = this.anchored.of(indices);
      batch.textsPerExample += batch.fixed.count;
    }
    if (this.kept !== undefined) batch.kept = this.kept.take(step, indices.length);
    return batch;
  }
}

/** The texts of one side of all examples, as vectors of the base model. */
class AnchoredTexts {
  private constructor(
    private readonly places: Places,
    private readonly vectors: Float32Array,
    private readonly indices: Int32Array,
    private readonly width: number,
  ) {}

  static async embed(taken: PackedTexts, places: Places, run: BaseRun): Promise<AnchoredTexts> {
    const { texts, indices } = distinctTexts(taken, 0, taken.offsets.length - 1);
    const vectors = await baseVectors(texts, run);
    return new AnchoredTexts(places, vectors, indices, vectors.length / (texts.offsets.length - 1));
  }

  of(examples: Int32Array): FixedTexts {
    const { width, places } = this;
    const vectors = new Float32Array(examples.length * places.count * width);
    for (const [i, example] of examples.entries()) {
      for (let place = 0; place < places.count; place++) {
        const row = this.indices[places.count * example + place] as number;
        vectors.set(rowsOf(this.vectors, row, width), (i * places.count + place) * width);
      }
    }
    return { ...places, vectors };
  }
}

/** Texts and their vectors of the base model, of which every step takes the next few, over and over. */
class KeptSample {
  private readonly count: number;

  constructor(
    private readonly texts: PackedTexts,
    private readonly vectors: Float32Array,
    private readonly weight: number,
    /** Texts of a step whose examples are all there. */
    private readonly stride: number,
  ) {
    this.count = texts.offsets.length - 1;
  }

  take(step: number, most: number): KeptTexts {
    const start = step * this.stride;
    const width = this.vectors.length / this.count;
    const order = Int32Array.from({ length: Math.min(most, this.count) }, (_, i) => (start + i) % this.count);
    const vectors = new Float32Array(order.length * width);
    for (const [i, text] of order.entries()) vectors.set(rowsOf(this.vectors, text, width), i * width);
    return { ...gatherTexts(this.texts, order), vectors, weight: this.weight };
  }
}

function rowsOf(vectors: Float32Array, row: number, width: number): Float32Array {
  return vectors.subarray(row * width, (row + 1) * width);
}
