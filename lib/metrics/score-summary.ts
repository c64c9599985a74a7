import { PeftTrainError } from "../errors.js";
import { countPositives } from "./ranking.js";

/** How the scores of one class lie. */
export interface ClassScores {
  count: number;
  /** Undefined for a class without pairs, as are `lowest` and `highest`. */
  mean: number | undefined;
  lowest: number | undefined;
  highest: number | undefined;
  /** Scores in each bin. */
  histogram: number[];
}

export interface ScoreSummary {
  /** Edges of the bins, one more than there are bins. */
  edges: number[];
  positive: ClassScores;
  negative: ClassScores;
}

export interface HistogramOptions {
  /** Number of bins of equal width; 40 unless told. */
  bins?: number;
  /** Lowest and highest edge; -1 and 1 unless told. Scores beyond them count in the outermost bins. */
  range?: readonly [number, number];
}

/** Means and histograms of scores by class; a bin holds its lower edge, and the last one both, as numpy.histogram. */
export function summarizeScores(
  scores: ArrayLike<number>,
  labels: ArrayLike<number>,
  options: HistogramOptions = {},
): ScoreSummary {
  const { bins = 40, range = [-1, 1] } = options;
  const [low, high] = range;
  if (!Number.isInteger(bins) || bins < 1 || !(low < high)) {
    throw new PeftTrainError(
      "USAGE",
      `expected at least one bin and a range that rises, got ${bins} and ${low}, ${high}`,
    );
  }
  countPositives(scores, labels);
  const edges = Array.from({ length: bins + 1 }, (_, i) =>
    i === bins ? high : low + i * ((high - low) / bins),
  );
  const classes = [0, 1].map((label) => {
    const histogram = new Array<number>(bins).fill(0);
    let [count, sum, lowest, highest] = [0, 0, Infinity, -Infinity];
    for (let i = 0; i < scores.length; i++) {
      if (labels[i] !== label) continue;
      const score = scores[i] as number;
      count++;
      sum += score;
      lowest = Math.min(lowest, score);
      highest = Math.max(highest, score);
      (histogram[binOf(score, edges)] as number)++;
    }
    const some = count > 0;
    return {
      count,
      mean: some ? sum / count : undefined,
      lowest: some ? lowest : undefined,
      highest: some ? highest : undefined,
      histogram,
    };
  });
  return { edges, positive: classes[1] as ClassScores, negative: classes[0] as ClassScores };
}

function binOf(score: number, edges: number[]): number {
  const bins = edges.length - 1;
  const low = edges[0] as number;
  const width = ((edges[bins] as number) - low) / bins;
  let bin = Math.max(0, Math.min(bins - 1, Math.floor((score - low) / width)));
  // The division rounds; the edges decide.
  while (bin > 0 && score < (edges[bin] as number)) bin--;
  while (bin < bins - 1 && score >= (edges[bin + 1] as number)) bin++;
  return bin;
}
