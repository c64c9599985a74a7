import { DEFAULT_COLUMNS, type ExampleKind } from "../../data/example-layout.js";
import type { ExampleDataset } from "../../data/examples.js";
import { type EncodingEngine, embedTexts, type PackedTexts } from "../../embed.js";
import { PeftTrainError } from "../../errors.js";
import { averagePrecision } from "../../metrics/average-precision.js";
import { pearson, spearman } from "../../metrics/correlation.js";
import { toldCosine } from "../../metrics/cosine.js";
import { rocAuc } from "../../metrics/roc.js";
import { bestAccuracy, bestF1 } from "../../metrics/threshold.js";

/** How well cosine similarity tells labelled pairs apart. */
export interface LabelMetrics {
  /** Pairs that were measured. */
  pairs: number;
  /** Of these, labelled as the same. */
  positives: number;
  /** As scikit-learn's roc_auc_score; null when there is one class only. */
  rocAuc: number | null;
  /** As scikit-learn's average_precision_score; null when there is no positive. */
  averagePrecision: number | null;
  /** The best that one threshold on the cosine gives, and that threshold. */
  accuracy: number;
  /** Cosine from which a pair counts as the same, for that accuracy. */
  accuracyThreshold: number;
  /** The best that one threshold on the cosine gives. */
  f1: number;
  /** Cosine from which a pair counts as the same, for that F1. */
  f1Threshold: number;
  /** At that threshold of F1. */
  precision: number;
  /** At that threshold of F1. */
  recall: number;
  /** The pair loss, without dropout. */
  loss: number;
}

/** How cosine similarity and the scores of pairs go together. */
export interface ScoreMetrics {
  /** Pairs that were measured. */
  pairs: number;
  /** Rank correlation, as scipy's spearmanr; null when all scores or all cosines are equal. */
  spearman: number | null;
  /** As scipy's pearsonr. */
  pearson: number | null;
}

/** How often an anchor is nearer to its positive than to a negative. */
export interface TripletMetrics {
  /** An example with several negatives counts once for each. */
  triplets: number;
  /** Part of them whose positive is nearer, 0 to 1. */
  tripletAccuracy: number;
}

/** How near texts are to the vectors that they are to get. */
export interface TeacherMetrics {
  /** Texts that were measured. */
  texts: number;
  /** Mean cosine between the two. */
  teacherCosine: number;
}

/** Metrics of a set of examples, by what they are. */
export type EvalMetrics = (LabelMetrics | ScoreMetrics | TripletMetrics | TeacherMetrics) & {
  /** While training: mean cosine of held-out texts to their vectors of the base model; 1 where nothing has drifted. */
  baseCosine?: number;
};

/** The one number that each kind of example is judged by. */
export const PRIMARY_METRIC: Record<ExampleKind, string> = {
  labels: "AUC",
  scores: "correlation",
  negatives: "accuracy",
  positives: "accuracy",
  texts: "cosine",
};

export interface EvaluateOptions {
  /** Examples encoded at a time. */
  batchSize: number;
  /** Name of an adapter; true for the one there is, false for the base model. */
  adapter: boolean | string;
  onProgress?: ((pairsDone: number, pairsTotal: number) => void) | undefined;
  stopped?: (() => boolean) | undefined;
  /** Sees what the metrics are made of: cosines as `similarities` gives them, or those of texts to their vectors. */
  onScores?: ((scores: Float32Array) => void) | undefined;
}

/** Examples whose texts are embedded together; bounds memory at 64k vectors of pairs however large the set is. */
const EXAMPLES_AT_A_TIME = 32_768;

/** Measures a set of examples by what they are; undefined when it was stopped. */
export async function evaluateExamples(
  encoder: EncodingEngine,
  dataset: ExampleDataset,
  options: EvaluateOptions,
): Promise<EvalMetrics | undefined> {
  if (dataset.kind === "texts") return teacherMetrics(encoder, dataset, options);
  const scores = await similarities(encoder, dataset, options);
  if (scores === undefined) return undefined;
  options.onScores?.(scores);
  const { kind, labels, count } = dataset;
  if (kind === "scores") {
    return {
      pairs: count,
      spearman: spearman(scores, labels) ?? null,
      pearson: pearson(scores, labels) ?? null,
    };
  }
  return kind === "negatives"
    ? tripletMetrics(scores, dataset.textsPerExample - 1)
    : metricsOf(scores, labels);
}

/**
 * @param part Which examples of the file they are, for messages.
 * @throws USAGE or DATA_LABEL for a set that there is no metric of.
 */
export function requireMeasurable(
  dataset: ExampleDataset,
  labelColumn = DEFAULT_COLUMNS.label,
  part = "",
): void {
  const path = dataset.path + part;
  if (dataset.kind === "labels") requireBothClasses({ ...dataset, path }, labelColumn);
  if (dataset.kind !== "positives") return;
  throw new PeftTrainError("USAGE", `${path}: pairs without labels cannot be measured`, {
    hint: "Give --eval_dataset_name a file with labels, scores or negatives.",
  });
}

/** @throws DATA_LABEL: neither the loss nor ROC AUC says anything about a set of one class. */
export function requireBothClasses(dataset: ExampleDataset, labelColumn = DEFAULT_COLUMNS.label): void {
  if (dataset.positives > 0 && dataset.positives < dataset.count) return;
  const label = dataset.positives === 0 ? 0 : 1;
  throw new PeftTrainError(
    "DATA_LABEL",
    `${dataset.path}: all ${dataset.count} labels in column ${labelColumn} are ${label}; expected both 0 and 1`,
    { hint: "Pairs of both kinds are needed: 1 for the same meaning, 0 for another." },
  );
}

/** Cosine of the first text of every example with each of the others, in their order; undefined when it was stopped. */
export async function similarities(
  encoder: EncodingEngine,
  dataset: ExampleDataset,
  options: EvaluateOptions,
): Promise<Float32Array | undefined> {
  const { count, textsPerExample: each } = dataset;
  const scores = new Float32Array(count * (each - 1));
  for (let start = 0; start < count; start += EXAMPLES_AT_A_TIME) {
    const end = Math.min(count, start + EXAMPLES_AT_A_TIME);
    const { texts, indices } = distinctTexts(dataset, each * start, each * end);
    const vectors = await embedTexts(encoder, texts, {
      adapter: options.adapter,
      normalize: true,
      textsPerCall: each * options.batchSize,
      onProgress: (done, total) => {
        options.onProgress?.(start + Math.round(((end - start) * done) / total), count);
      },
      stopped: options.stopped,
    });
    if (vectors === undefined) return undefined;
    const width = vectors.length / (texts.offsets.length - 1);
    for (let i = 0; i < end - start; i++) {
      const a = (indices[each * i] as number) * width;
      for (let other = 1; other < each; other++) {
        const b = (indices[each * i + other] as number) * width;
        let sum = 0;
        for (let j = 0; j < width; j++) sum += (vectors[a + j] as number) * (vectors[b + j] as number);
        scores[(start + i) * (each - 1) + other - 1] = sum;
      }
    }
  }
  return scores;
}

async function teacherMetrics(
  encoder: EncodingEngine,
  dataset: ExampleDataset,
  options: EvaluateOptions,
): Promise<TeacherMetrics | undefined> {
  const { count, labels } = dataset;
  const vectors = await embedTexts(encoder, dataset, {
    adapter: options.adapter,
    normalize: true,
    textsPerCall: options.batchSize,
    onProgress: options.onProgress,
    stopped: options.stopped,
  });
  if (vectors === undefined) return undefined;
  const width = vectors.length / count;
  const cosines = new Float32Array(count);
  let sum = 0;
  for (let text = 0; text < count; text++) {
    let [product, square] = [0, 0];
    for (let i = text * width; i < (text + 1) * width; i++) {
      product += (vectors[i] as number) * (labels[i] as number);
      square += (labels[i] as number) ** 2;
    }
    const cosine = square === 0 ? 0 : product / Math.sqrt(square);
    cosines[text] = cosine;
    sum += cosine;
  }
  options.onScores?.(cosines);
  return { texts: count, teacherCosine: toldCosine(sum / count) };
}

/** As sentence-transformers' TripletEvaluator: a tie counts as wrong. */
function tripletMetrics(scores: Float32Array, each: number): TripletMetrics {
  let right = 0;
  const triplets = (scores.length / each) * (each - 1);
  for (let first = 0; first < scores.length; first += each) {
    for (let i = 1; i < each; i++) if ((scores[first] as number) > (scores[first + i] as number)) right++;
  }
  return { triplets, tripletAccuracy: right / triplets };
}

/** Every metric of the cosines of labelled pairs. */
export function metricsOf(scores: Float32Array, labels: Float32Array): LabelMetrics {
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

/** mean((y (1 - cos) + (1 - y) max(cos, 0))^2) */
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
  { ids, offsets }: PackedTexts,
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
