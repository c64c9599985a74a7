import { PeftTrainError } from "../errors.js";

/** Pearson's correlation of two series, as scipy. Undefined when either is constant or there are fewer than two. */
export function pearson(x: ArrayLike<number>, y: ArrayLike<number>): number | undefined {
  checkSeries(x, y);
  const meanX = mean(x);
  const meanY = mean(y);
  let xx = 0;
  let yy = 0;
  let xy = 0;
  for (let i = 0; i < x.length; i++) {
    const dx = (x[i] as number) - meanX;
    const dy = (y[i] as number) - meanY;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  if (isConstant(x) || isConstant(y)) return undefined; // a mean that rounds leaves sums just above zero
  return Math.max(-1, Math.min(1, xy / (Math.sqrt(xx) * Math.sqrt(yy))));
}

/** Spearman's rank correlation, tied values sharing their mean rank, as scipy. Undefined where Pearson's is. */
export function spearman(x: ArrayLike<number>, y: ArrayLike<number>): number | undefined {
  checkSeries(x, y);
  return pearson(averageRanks(x), averageRanks(y));
}

/** Ranks from 1, the lowest first; ties share the mean of their ranks. */
export function averageRanks(values: ArrayLike<number>): Float64Array {
  const order = Uint32Array.from({ length: values.length }, (_, i) => i);
  order.sort((a, b) => (values[a] as number) - (values[b] as number));
  const ranks = new Float64Array(values.length);
  for (let start = 0; start < order.length; ) {
    let end = start + 1;
    while (end < order.length && values[order[end] as number] === values[order[start] as number]) end++;
    for (let i = start; i < end; i++) ranks[order[i] as number] = (start + end + 1) / 2;
    start = end;
  }
  return ranks;
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] as number;
  return sum / values.length;
}

function isConstant(values: ArrayLike<number>): boolean {
  for (let i = 1; i < values.length; i++) if (values[i] !== values[0]) return false;
  return true;
}

function checkSeries(x: ArrayLike<number>, y: ArrayLike<number>): void {
  if (x.length !== y.length) {
    throw new PeftTrainError("USAGE", `expected two series of one length, got ${x.length} and ${y.length}`);
  }
  for (const series of [x, y]) {
    for (let i = 0; i < series.length; i++) {
      if (!Number.isFinite(series[i])) {
        throw new PeftTrainError("NOT_FINITE", `value ${i} of ${series.length} is ${series[i]}`);
      }
    }
  }
}
