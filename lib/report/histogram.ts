import type { Histogram } from "./lines.js";

export interface Histogrammed {
  name: string;
  style: string;
  histogram: Histogram;
}

/** Bars that several histograms share, each of `each` of their bins. */
export interface Bins {
  low: number;
  high: number;
  width: number;
  count: number;
}

const MOST_BARS = 50;

/** Bars wide enough to be seen, over all that is in the histograms and at the marks. */
export function binned(parts: readonly (Histogrammed | { x: number })[]): Bins {
  const fine = parts.flatMap((part) =>
    "histogram" in part && part.histogram.counts.length > 0 ? [part.histogram] : [],
  );
  const width = fine[0]?.width ?? 1;
  const marks = parts.flatMap((part) => ("x" in part ? [Math.floor(part.x / width)] : []));
  const first = Math.min(...fine.map((one) => one.first), ...marks);
  const last = Math.max(...fine.map((one) => one.first + one.counts.length - 1), ...marks);
  const each = Math.ceil((last - first + 1) / MOST_BARS);
  // Edges at multiples of a bar's width: round numbers on the axis.
  const from = Math.floor(first / each);
  const count = Math.floor(last / each) - from + 1;
  return { low: from * each * width, high: (from + count) * each * width, width: each * width, count };
}

export function middles({ low, width, count }: Bins): number[] {
  return Array.from({ length: count }, (_, i) => Number((low + (i + 0.5) * width).toFixed(6)));
}

/** What part of a histogram is in each bar. */
export function shares({ first, width, counts }: Histogram, bins: Bins) {
  const inBars = new Array<number>(bins.count).fill(0);
  for (const [i, found] of counts.entries()) {
    const middle = (first + i + 0.5) * width;
    (inBars[Math.floor((middle - bins.low) / bins.width)] as number) += found;
  }
  const total = counts.reduce((sum, found) => sum + found, 0);
  const percent = inBars.map((found) => (total === 0 ? 0 : Number(((100 * found) / total).toFixed(2))));
  const peak = middles(bins)[inBars.indexOf(Math.max(...inBars))] as number;
  return { total, counts: inBars, percent, peak };
}
