import type { RunLog } from "./run-log.js";

/** What was measured on the way, a point a stretch of steps. */
export interface Curve {
  /** Last step of each point. */
  steps: number[];
  losses: number[];
  learningRates: number[];
  pairsPerSecond: number[];
  /** Steps that most points are the mean of. */
  stepsPerPoint: number;
}

/** As many as a chart has pixels. */
const MOST_POINTS = 1000;

/** The curve of a run: of all its steps, or (with --no-report) of what was logged every --logging_steps. */
export function runCurve({ curve, logs }: Pick<RunLog, "curve" | "logs">): Curve {
  const measured =
    curve.steps.length > 0
      ? curve
      : {
          steps: logs.map(({ step }) => step),
          losses: logs.map(({ loss }) => loss),
          learningRates: logs.map(({ learningRate }) => learningRate),
          // A mean since the beginning, which is no curve.
          pairsPerSecond: [],
        };
  const thin = thinned(measured, MOST_POINTS);
  const count = thin.steps.length;
  return { ...thin, stepsPerPoint: Math.max(1, Math.round((thin.steps.at(-1) ?? 0) / Math.max(1, count))) };
}

/** Means of as many neighbours as leave at most `most` points, each weighted by its steps. */
export function thinned(curve: Omit<Curve, "stepsPerPoint">, most: number): Omit<Curve, "stepsPerPoint"> {
  const { steps } = curve;
  const each = Math.ceil(steps.length / most);
  if (each <= 1) return curve;
  const stepsOf = steps.map((step, i) => step - (steps[i - 1] ?? 0));
  const means = (values: readonly number[]): number[] => {
    const thin: number[] = [];
    for (let start = 0; start < values.length; start += each) {
      let [sum, weight] = [0, 0];
      for (let i = start; i < Math.min(start + each, values.length); i++) {
        sum += (values[i] as number) * (stepsOf[i] as number);
        weight += stepsOf[i] as number;
      }
      thin.push(Number((sum / weight).toPrecision(5)));
    }
    return thin;
  };
  return {
    steps: steps.filter((_, i) => (i + 1) % each === 0 || i === steps.length - 1),
    losses: means(curve.losses),
    learningRates: means(curve.learningRates),
    pairsPerSecond: means(curve.pairsPerSecond),
  };
}

/** An exponential moving average over about `span` points that does not start from zero. */
export function smoothed(values: readonly number[], span: number): number[] {
  const keep = 1 - 1 / span;
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return Number((sum / weight).toPrecision(5));
  });
}
