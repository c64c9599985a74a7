import { type Ranking, rank } from "./ranking.js";

/** A point of the ROC curve: what calling every score of at least `threshold` positive gives. */
export interface RocPoint {
  falsePositiveRate: number;
  truePositiveRate: number;
  /** Infinity for the first point, where nothing is called positive. */
  threshold: number;
}

/**
 * Area under the ROC curve: the chance that a positive scores higher than a negative, ties counting half, as
 * scikit-learn's `roc_auc_score`. Undefined when there is one class only.
 */
export function rocAuc(scores: ArrayLike<number>, labels: ArrayLike<number>): number | undefined {
  const { truePositives, falsePositives, positives, negatives } = rank(scores, labels);
  if (positives === 0 || negatives === 0) return undefined;
  // Twice the area in counts: whole numbers, so nothing is rounded before the division.
  let twice = 0;
  let hits = 0;
  let alarms = 0;
  for (let i = 0; i < truePositives.length; i++) {
    const nextHits = truePositives[i] as number;
    const nextAlarms = falsePositives[i] as number;
    twice += (nextAlarms - alarms) * (nextHits + hits);
    hits = nextHits;
    alarms = nextAlarms;
  }
  return twice / (2 * positives * negatives);
}

/**
 * The ROC curve from (0, 0) to (1, 1), without points that lie inside a straight stretch of equal steps, as
 * scikit-learn's `roc_curve`. Undefined when there is one class only.
 */
export function rocCurve(scores: ArrayLike<number>, labels: ArrayLike<number>): RocPoint[] | undefined {
  const ranking = rank(scores, labels);
  const { positives, negatives, truePositives, falsePositives } = ranking;
  if (positives === 0 || negatives === 0) return undefined;
  const curve: RocPoint[] = [{ falsePositiveRate: 0, truePositiveRate: 0, threshold: Infinity }];
  for (const i of corners(ranking)) {
    curve.push({
      falsePositiveRate: (falsePositives[i] as number) / negatives,
      truePositiveRate: (truePositives[i] as number) / positives,
      threshold: ranking.scores[i] as number,
    });
  }
  return curve;
}

function* corners({ truePositives, falsePositives }: Ranking): Generator<number> {
  const last = truePositives.length - 1;
  for (let i = 0; i <= last; i++) {
    if (i === 0 || i === last || bends(truePositives, i) || bends(falsePositives, i)) yield i;
  }
}

function bends(counts: Float64Array, i: number): boolean {
  return (counts[i + 1] as number) - 2 * (counts[i] as number) + (counts[i - 1] as number) !== 0;
}
