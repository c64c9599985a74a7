import { PeftTrainError } from "../errors.js";

/**
 * Scores in falling order with tied scores as one, and how many positives and negatives score at least as high: all
 * that ROC, precision-recall and threshold metrics need.
 */
export interface Ranking {
  /** Distinct scores, highest first. */
  scores: Float64Array;
  /** Positives with a score of at least `scores[i]`. */
  truePositives: Float64Array;
  /** Negatives with a score of at least `scores[i]`. */
  falsePositives: Float64Array;
  positives: number;
  negatives: number;
}

/**
 * Ranks scores by labels of 0 and 1, in O(n log n) without a comparison function: each class is sorted as a typed
 * array, and the two are merged.
 * @throws DATA_EMPTY, DATA_LABEL, NOT_FINITE, or USAGE when the lengths differ.
 */
export function rank(scores: ArrayLike<number>, labels: ArrayLike<number>): Ranking {
  const positives = countPositives(scores, labels);
  const negatives = scores.length - positives;
  const high = new Float64Array(positives);
  const low = new Float64Array(negatives);
  for (let i = 0, p = 0, n = 0; i < scores.length; i++) {
    if (labels[i] === 1) high[p++] = scores[i] as number;
    else low[n++] = scores[i] as number;
  }
  high.sort();
  low.sort();
  const distinct = new Float64Array(scores.length);
  const truePositives = new Float64Array(scores.length);
  const falsePositives = new Float64Array(scores.length);
  let groups = 0;
  let p = positives;
  let n = negatives;
  while (p > 0 || n > 0) {
    const top = Math.max(
      p > 0 ? (high[p - 1] as number) : -Infinity,
      n > 0 ? (low[n - 1] as number) : -Infinity,
    );
    while (p > 0 && high[p - 1] === top) p--;
    while (n > 0 && low[n - 1] === top) n--;
    distinct[groups] = top;
    truePositives[groups] = positives - p;
    falsePositives[groups] = negatives - n;
    groups++;
  }
  return {
    scores: distinct.slice(0, groups),
    truePositives: truePositives.slice(0, groups),
    falsePositives: falsePositives.slice(0, groups),
    positives,
    negatives,
  };
}

/** Checks scores and labels as every metric needs them, and counts the labels that are 1. */
export function countPositives(scores: ArrayLike<number>, labels: ArrayLike<number>): number {
  if (scores.length !== labels.length) {
    throw new PeftTrainError(
      "USAGE",
      `expected a label for each score, got ${labels.length} for ${scores.length}`,
    );
  }
  if (scores.length === 0) throw new PeftTrainError("DATA_EMPTY", "there are no scores to measure");
  let positives = 0;
  for (let i = 0; i < scores.length; i++) {
    if (!Number.isFinite(scores[i])) {
      throw new PeftTrainError("NOT_FINITE", `score ${i} of ${scores.length} is ${scores[i]}`, {
        hint: "The model gives no usable vectors: lower the learning rate, or check the weights.",
      });
    }
    const label = labels[i];
    if (label !== 0 && label !== 1) {
      throw new PeftTrainError("DATA_LABEL", `expected labels of 0 and 1, found ${label} at index ${i}`);
    }
    positives += label;
  }
  return positives;
}
