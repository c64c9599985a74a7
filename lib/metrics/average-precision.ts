import { rank } from "./ranking.js";

/**
 * Mean precision over the steps of recall, as scikit-learn's `average_precision_score`: no interpolation, tied scores
 * as one step. Undefined when there is no positive.
 */
export function averagePrecision(scores: ArrayLike<number>, labels: ArrayLike<number>): number | undefined {
  const { truePositives, falsePositives, positives } = rank(scores, labels);
  if (positives === 0) return undefined;
  let sum = 0;
  let before = 0;
  for (let i = 0; i < truePositives.length; i++) {
    const hits = truePositives[i] as number;
    if (hits > before) sum += (hits - before) * (hits / (hits + (falsePositives[i] as number)));
    before = hits;
  }
  return sum / positives;
}
