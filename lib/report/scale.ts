export type Range = readonly [low: number, high: number];

/** A range and round numbers in it for an axis. */
export interface Axis {
  range: Range;
  ticks: number[];
  /** A number as the axis shows it: as many digits as tell its ticks apart. */
  label: (value: number) => string;
}

/** Lowest and highest of some numbers; a little around a single one. */
export function rangeOf(values: Iterable<number>): Range {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  if (low < high) return [low, high];
  const around = Math.abs(low) * 0.1 || 1;
  return [low - around, high + around];
}

/** An axis of some five ticks at 1, 2 or 5 times a power of ten; `widen` ends it at ticks. */
export function axis([low, high]: Range, { widen = false, whole = false, most = 5 } = {}): Axis {
  const step = roundStep((high - low) / most, whole);
  // Counted in steps, so that sums do not drift. What cannot be seen, as a cosine of 1.0000001, needs no tick of its own.
  const first = widen ? Math.floor(low / step + 1e-4) : Math.ceil(low / step - 1e-9);
  const last = widen ? Math.ceil(high / step - 1e-4) : Math.floor(high / step + 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
  const range: Range = widen ? [ticks[0] as number, ticks.at(-1) as number] : [low, high];
  return { range, ticks, label: labelFor(step, Math.max(Math.abs(range[0]), Math.abs(range[1]))) };
}

function roundStep(step: number, whole: boolean): number {
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = [1, 2, 5, 10].find((times) => times * power >= step * (1 - 1e-9)) as number;
  return whole ? Math.max(1, Math.round(factor * power)) : factor * power;
}

function labelFor(step: number, most: number): (value: number) => string {
  if (most >= 1e6) return (value) => `${trim(value / 1e6)}M`;
  if (most >= 1e4) return (value) => (value === 0 ? "0" : `${trim(value / 1e3)}k`);
  if (most < 1e-2) return (value) => (value === 0 ? "0" : value.toExponential(1).replace(/\.0e/, "e"));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return (value) => value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1");
}

function trim(value: number): string {
  return String(Number(value.toPrecision(4)));
}
