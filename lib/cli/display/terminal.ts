import path from "node:path";
import { styleText } from "node:util";
import Table from "cli-table3";
import { duration } from "../../format.js";

export { count, counted, duration, metric, rate, size } from "../../format.js";

/** Colours only where they are seen: on a terminal that has not asked for none (https://no-color.org). */
export function bold(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return hasColors(stream) ? styleText("bold", text) : text;
}

export function dim(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return hasColors(stream) ? styleText("dim", text) : text;
}

export function hasColors(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && stream.hasColors();
}

/**
 * The time that `total - done` will take at the pace so far, as `duration` shows it; `?` before anything is done.
 * @param startedAt Of `performance.now()`.
 */
export function timeLeft(startedAt: number, done: number, total: number): string {
  if (done <= 0) return "?";
  return duration(((performance.now() - startedAt) / 1000 / done) * (total - done));
}

/** A path as short as it can be from here. */
export function shortPath(file: string): string {
  const relative = path.relative("", file) || ".";
  return relative.startsWith("..") ? file : relative;
}

/** A text in so many characters, its end left out where there are more. */
export function shortened(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

export function table(
  head: string[],
  rows: string[][],
  options: { right?: number[]; widths?: (number | null)[]; lines?: boolean } = {},
): string {
  const drawn = new Table({
    head: head.map((title) => bold(title)),
    colAligns: head.map((_, i) => (options.right?.includes(i) ? "right" : "left")),
    ...(options.widths === undefined ? {} : { colWidths: options.widths, wordWrap: true }),
    // A line below the head is enough; cli-table3 would draw one below every row.
    chars: options.lines === true ? {} : { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" },
    style: { head: [], border: [] },
  });
  drawn.push(...rows);
  return drawn.toString();
}
