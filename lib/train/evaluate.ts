import { DEFAULT_COLUMNS, type PairDataset } from "../data/pairs.js";
import { embedTexts } from "../embed.js";
import { PeftTrainError } from "../errors.js";
import { averagePrecision } from "../metrics/average-precision.js";
import { rocAuc } from "../metrics/roc.js";
import { bestAccuracy, bestF1 } from "../metrics/threshold.js";
import type { NativeEncoder } from "../native/types.js";

/** How well cosine similarity tells the pairs of a set apart. */
export interface EvalMetrics {
  pairs: number;
  positives: number;
  /** As scikit-learn's roc_auc_score; null when there is one class only. */
  rocAuc: number | null;
  /** As scikit-learn's average_precision_score; null when there is no positive. */
  averagePrecision: number | null;
  /** The best that one threshold on the cosine gives, and that threshold. */
  accuracy: number;
  accuracyThreshold: number;
  f1: number;
  f1Threshold: number;
  precision: number;
  recall: number;
  /** The training loss, without dropout. */
  loss: number;
}

export interface EvaluateOptions {
  /** Pairs encoded at a time. */
  batchSize: number;
  /** False measures the base model. */
  adapter: boolean;
  onProgress?: ((pairsDone: number, pairsTotal: number) => void) | undefined;
  stopped?: (() => boolean) | undefined;
}

/** Pairs whose texts are embedded together; bounds memory at 64k vectors however large the set is. */
const PAIRS_AT_A_TIME = 32_768;

/** Measures a set of pairs; undefined when it was stopped. */
export async function evaluatePairs(
  encoder: NativeEncoder,
  dataset: PairDataset,
  options: EvaluateOptions,
): Promise<EvalMetrics | undefined> {
  const scores = await pairSimilarities(encoder, dataset, options);
  return scores === undefined ? undefined : metricsOf(scores, dataset.labels);
}

/** @throws DATA_LABEL: neither the loss nor ROC AUC says anything about a set of one class. */
export function requireBothClasses(dataset: PairDataset, labelColumn = DEFAULT_COLUMNS.label): void {
  if (dataset.positives > 0 && dataset.positives < dataset.count) return;
  const label = dataset.positives === 0 ? 0 : 1;
  throw new PeftTrainError(
    "DATA_LABEL",
    `${dataset.path}: all ${dataset.count} labels in column ${labelColumn} are ${label}; expected both 0 and 1`,
    { hint: "Pairs of both kinds are needed: 1 for the same meaning, 0 for another." },
  );
}

/** Cosine of every pair; undefined when it was stopped. */
export async function pairSimilarities(
  encoder: NativeEncoder,
  dataset: PairDataset,
  options: EvaluateOptions,
): Promise<Float32Array | undefined> {
  const scores = new Float32Array(dataset.count);
  for (let start = 0; start < dataset.count; start += PAIRS_AT_A_TIME) {
    const end = Math.min(dataset.count, start + PAIRS_AT_A_TIME);
    const { texts, indices } = distinctTexts(dataset, 2 * start, 2 * end);
    const vectors = await embedTexts(encoder, texts, {
      adapter: options.adapter,
      normalize: true,
      textsPerCall: 2 * options.batchSize,
      onProgress: (done, total) => {
        options.onProgress?.(start + Math.round(((end - start) * done) / total), dataset.count);
      },
      stopped: options.stopped,
    });
    if (vectors === undefined) return undefined;
    const width = vectors.length / (texts.offsets.length - 1);
    for (let i = 0; i < end - start; i++) {
      const [a, b] = [(indices[2 * i] as number) * width, (indices[2 * i + 1] as number) * width];
      let sum = 0;
      for (let j = 0; j < width; j++) sum += (vectors[a + j] as number) * (vectors[b + j] as number);
      scores[start + i] = sum;
    }
  }
  return scores;
}

/** Every metric of one set of cosines. */
export function metricsOf(scores: Float32Array, labels: Float32Array): EvalMetrics {
  const accuracy = bestAccuracy(scores, labels);
  const f1 = bestF1(scores, labels);
  return {
    pairs: labels.length,
    positives: labels.reduce((sum, label) => sum + label, 0),
    rocAuc: rocAuc(scores, labels) ?? null,
    averagePrecision: averagePrecision(scores, labels) ?? null,
    accuracy: accuracy.accuracy,
    accuracyThreshold: accuracy.threshold,
    f1: f1.f1,
    f1Threshold: f1.threshold,
    precision: f1.precision,
    recall: f1.recall,
    loss: pairLoss(scores, labels),
  };
}

/** mean((y (1 - cos) + (1 - y) max(cos, 0))^2), the loss of training. */
function pairLoss(scores: Float32Array, labels: Float32Array): number {
  let sum = 0;
  for (const [i, cosine] of scores.entries()) {
    sum += (labels[i] === 1 ? 1 - cosine : Math.max(cosine, 0)) ** 2;
  }
  return sum / scores.length;
}

/**
 * The texts `[from, to)` of a set, each distinct one once (of Quora's questions one in eight comes again), and for
 * every text its place among them.
 */
export function distinctTexts(
  { ids, offsets }: PairDataset,
  from: number,
  to: number,
): { texts: { ids: Int32Array; offsets: Float64Array }; indices: Int32Array } {
  const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength);
  const seen = new Map<string, number>();
  const indices = new Int32Array(to - from);
  const kept: number[] = [];
  const distinctOffsets = [0];
  for (let text = from; text < to; text++) {
    const [start, end] = [offsets[text] as number, offsets[text + 1] as number];
    const key = bytes.toString("latin1", 4 * start, 4 * end);
    let index = seen.get(key);
    if (index === undefined) {
      index = kept.length;
      seen.set(key, index);
      kept.push(text);
      distinctOffsets.push((distinctOffsets[index] as number) + end - start);
    }
    indices[text - from] = index;
  }
  const distinct = new Int32Array(distinctOffsets[kept.length] as number);
  for (const [index, text] of kept.entries()) {
    distinct.set(ids.subarray(offsets[text], offsets[text + 1]), distinctOffsets[index]);
  }
  return { texts: { ids: distinct, offsets: Float64Array.from(distinctOffsets) }, indices };
}
