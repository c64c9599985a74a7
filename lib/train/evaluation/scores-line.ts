import type { ExampleDataset } from "../../data/examples.js";
import { averageRanks } from "../../metrics/correlation.js";
import { toldCosine } from "../../metrics/cosine.js";
import { rocCurve } from "../../metrics/roc.js";
import type {
  Distribution,
  Histogram,
  RocPoints,
  ScoreGroup,
  ScoresLine,
  WorstExample,
} from "../../report/lines.js";
import type { EvaluatedEvent } from "../events.js";

/** Mistakes that are shown. */
const WORST = 20;
/** Cosines lie close together: those of e5 within 0.3. */
const BIN_WIDTH = 0.01;
/** A curve with corners so near each other looks like the whole. */
const ROC_STEP = 0.01;
const SCORE_GROUPS = 12;

/** What the report needs of an evaluation, from the scores that `evaluateExamples` made its metrics of. */
export function scoresLine(
  { epoch, step, metrics }: EvaluatedEvent,
  dataset: ExampleDataset,
  scores: Float32Array,
): ScoresLine {
  const { labels, textsPerExample } = dataset;
  const line = (distribution: Distribution, worst: WorstExample[]): ScoresLine => ({
    event: "scores",
    epoch,
    step,
    distribution,
    worst,
  });
  const told = (score: number): number => toldCosine(scores[score] as number);
  const pair = (example: number): WorstExample => ({
    example,
    texts: [0, 1],
    scores: [told(example)],
  });
  switch (dataset.kind) {
    case "scores": {
      const [byScore, byCosine] = [averageRanks(labels), averageRanks(scores)];
      const apart = (i: number): number => Math.abs((byScore[i] as number) - (byCosine[i] as number));
      return line(
        { kind: "scores", groups: scoreGroups(scores, labels) },
        highest(dataset.count, apart).map(pair),
      );
    }
    case "negatives": {
      const triplets = tripletMargins(scores, textsPerExample - 1);
      const worst = highest(dataset.count, (i) => -(triplets.least[i] as number)).map((example) => {
        const nearest = triplets.nearest[example] as number;
        const first = example * (textsPerExample - 1);
        return {
          example,
          texts: [0, 1, 1 + nearest],
          scores: [told(first), told(first + nearest)],
        };
      });
      return line({ kind: "negatives", margins: histogram(triplets.margins) }, worst);
    }
    case "texts": {
      const worst = highest(dataset.count, (i) => -(scores[i] as number));
      return line(
        { kind: "texts", cosines: histogramOfCosines(scores) },
        worst.map((example) => ({ ...pair(example), texts: [0] })),
      );
    }
    default: {
      const threshold = "accuracyThreshold" in metrics ? metrics.accuracyThreshold : 0;
      /** Below 0 for pairs on the right side. */
      const beyond = (i: number): number => ((scores[i] as number) - threshold) * (labels[i] === 1 ? -1 : 1);
      return line(
        {
          kind: "labels",
          positive: histogramOfCosines(scores.filter((_, i) => labels[i] === 1)),
          negative: histogramOfCosines(scores.filter((_, i) => labels[i] === 0)),
          roc: rocPoints(scores, labels),
        },
        highest(dataset.count, beyond)
          .filter((i) => beyond(i) >= 0)
          .map(pair),
      );
    }
  }
}

/** Places of the highest values, the highest first. */
export function highest(count: number, value: (index: number) => number, most = WORST): number[] {
  const kept: { index: number; value: number }[] = [];
  for (let index = 0; index < count; index++) {
    const found = value(index);
    if (kept.length === most && found <= (kept.at(-1)?.value as number)) continue;
    const at = kept.findIndex((other) => other.value < found);
    kept.splice(at < 0 ? kept.length : at, 0, { index, value: found });
    if (kept.length > most) kept.pop();
  }
  return kept.map(({ index }) => index);
}

/** Of cosines: the last bin holds both its edges, and with them what rounding took above 1. */
function histogramOfCosines(values: Float32Array): Histogram {
  return histogram(values, 1 / BIN_WIDTH - 1);
}

function histogram(values: Float32Array, lastBin = Infinity): Histogram {
  const bins = values.map((value) => Math.min(Math.floor(value / BIN_WIDTH), lastBin));
  const first = bins.reduce((low, bin) => Math.min(low, bin), Infinity);
  const last = bins.reduce((high, bin) => Math.max(high, bin), -Infinity);
  if (values.length === 0) return { first: 0, width: BIN_WIDTH, counts: [] };
  const counts = new Array<number>(last - first + 1).fill(0);
  for (const bin of bins) (counts[bin - first] as number)++;
  return { first, width: BIN_WIDTH, counts };
}

function rocPoints(scores: Float32Array, labels: Float32Array): RocPoints {
  const points: RocPoints = { falsePositiveRate: [], truePositiveRate: [], threshold: [] };
  const curve = rocCurve(scores, labels) ?? [];
  let [lastX, lastY] = [-1, -1];
  for (const [i, { falsePositiveRate: x, truePositiveRate: y, threshold }] of curve.entries()) {
    if (i < curve.length - 1 && x - lastX + y - lastY < ROC_STEP) continue;
    [lastX, lastY] = [x, y];
    points.falsePositiveRate.push(rounded(x));
    points.truePositiveRate.push(rounded(y));
    points.threshold.push(Number.isFinite(threshold) ? rounded(threshold) : null);
  }
  return points;
}

/** Pairs by their score: each value that comes up, or as many stretches of equal width. */
function scoreGroups(cosines: Float32Array, scores: Float32Array): ScoreGroup[] {
  const distinct = [...new Set(scores)].sort((a, b) => a - b);
  const [low, high] = [distinct[0] as number, distinct.at(-1) as number];
  const width = (high - low) / SCORE_GROUPS;
  const few = distinct.length <= SCORE_GROUPS;
  const groupOf = (score: number): number =>
    few ? distinct.indexOf(score) : Math.min(SCORE_GROUPS - 1, Math.floor((score - low) / width));
  const groups = Array.from({ length: few ? distinct.length : SCORE_GROUPS }, (): number[] => []);
  for (const [i, score] of scores.entries()) groups[groupOf(score)]?.push(cosines[i] as number);
  return groups.flatMap((group, i) => {
    if (group.length === 0) return [];
    group.sort((a, b) => a - b);
    const quartile = (part: number): number =>
      rounded(group[Math.floor(part * (group.length - 1))] as number);
    const score = few ? (distinct[i] as number) : low + (i + 0.5) * width;
    return {
      score: rounded(score),
      pairs: group.length,
      quartiles: [quartile(0.25), quartile(0.5), quartile(0.75)] as [number, number, number],
    };
  });
}

/** Cosine to the positive less that to each negative; of every example the least of them, and whose it is. */
function tripletMargins(scores: Float32Array, each: number) {
  const count = scores.length / each;
  const margins = new Float32Array(count * (each - 1));
  const least = new Float32Array(count).fill(Infinity);
  const nearest = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    for (let other = 1; other < each; other++) {
      const margin = (scores[i * each] as number) - (scores[i * each + other] as number);
      margins[i * (each - 1) + other - 1] = margin;
      if (margin >= (least[i] as number)) continue;
      least[i] = margin;
      nearest[i] = other;
    }
  }
  return { margins, least, nearest };
}

function rounded(value: number): number {
  return Number(value.toFixed(5));
}
