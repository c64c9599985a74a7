import { rank } from "./ranking.js";

// The rules for thresholds are those of BinaryClassificationEvaluator in sentence-transformers 6.2: scores are taken
// from the highest down, tied scores together; the first of equally good cuts wins; a cut lies half-way between the
// scores on its two sides, in the precision of the scores.

export interface AccuracyThreshold {
  accuracy: number;
  /** Pairs that score at least this are called positive. */
  threshold: number;
}

export interface F1Threshold {
  f1: number;
  precision: number;
  recall: number;
  /** Pairs that score at least this are called positive. */
  threshold: number;
}

/** The best accuracy that one threshold gives; calling everything negative, or everything positive, is tried too. */
export function bestAccuracy(scores: ArrayLike<number>, labels: ArrayLike<number>): AccuracyThreshold {
  const { scores: distinct, truePositives, falsePositives, negatives } = rank(scores, labels);
  let best = negatives;
  let threshold = nextAbove(distinct[0] as number, scores);
  for (let i = 0; i < distinct.length; i++) {
    const correct = (truePositives[i] as number) + negatives - (falsePositives[i] as number);
    if (correct <= best) continue;
    best = correct;
    threshold = cutAfter(distinct, i, scores);
  }
  return { accuracy: best / scores.length, threshold };
}

/** The best F1 that one threshold gives; all zeros when there is no positive. */
export function bestF1(scores: ArrayLike<number>, labels: ArrayLike<number>): F1Threshold {
  const { scores: distinct, truePositives, falsePositives, positives } = rank(scores, labels);
  let best: F1Threshold = { f1: 0, precision: 0, recall: 0, threshold: 0 };
  for (let i = 0; i < distinct.length; i++) {
    const hits = truePositives[i] as number;
    if (hits === 0) continue;
    const precision = hits / (hits + (falsePositives[i] as number));
    const recall = hits / positives;
    const f1 = (2 * precision * recall) / (precision + recall);
    if (f1 > best.f1) best = { f1, precision, recall, threshold: cutAfter(distinct, i, scores) };
  }
  return best;
}

/** Matthews correlation of labels with `score >= threshold`, as scikit-learn: 0 when either has one class only. */
export function matthews(scores: ArrayLike<number>, labels: ArrayLike<number>, threshold: number): number {
  const { scores: distinct, truePositives, falsePositives, positives, negatives } = rank(scores, labels);
  const firstBelow = distinct.findIndex((score) => score < threshold);
  const last = (firstBelow === -1 ? distinct.length : firstBelow) - 1;
  const hits = truePositives[last] ?? 0;
  const alarms = falsePositives[last] ?? 0;
  const called = hits + alarms;
  const count = positives + negatives;
  // Factor by factor: the whole product leaves 2^53 behind at some ten thousand scores.
  const spread = Math.sqrt(positives * negatives) * Math.sqrt(called * (count - called));
  return spread === 0 ? 0 : (hits * negatives - alarms * positives) / spread;
}

/** A threshold that takes the scores up to number `i` and no further. */
function cutAfter(distinct: Float64Array, i: number, scores: ArrayLike<number>): number {
  const above = distinct[i] as number;
  const below = distinct[i + 1];
  if (below === undefined) return above;
  const round = scores instanceof Float32Array ? Math.fround : (value: number) => value;
  const middle = round(round(above + below) / 2);
  // Half-way between neighbours can round to the lower one, which must stay out.
  return middle === below ? above : middle;
}

/** The next number above `value` in the precision of `scores`. */
function nextAbove(value: number, scores: ArrayLike<number>): number {
  if (scores instanceof Float32Array) {
    const float = Float32Array.of(value);
    const bits = new Int32Array(float.buffer);
    if (float[0] === 0) bits[0] = 1;
    else (bits[0] as number) += value > 0 ? 1 : -1;
    return float[0] as number;
  }
  const double = Float64Array.of(value);
  const bits = new BigInt64Array(double.buffer);
  if (value === 0) bits[0] = 1n;
  else bits[0] = (bits[0] as bigint) + (value > 0 ? 1n : -1n);
  return double[0] as number;
}
