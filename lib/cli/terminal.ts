import path from "node:path";
import { styleText } from "node:util";
import Table from "cli-table3";

/** Colours only where they are seen: on a terminal that has not asked for none (https://no-color.org). */
export function bold(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return hasColors(stream) ? styleText("bold", text) : text;
}

export function dim(text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return hasColors(stream) ? styleText("dim", text) : text;
}

function hasColors(stream: NodeJS.WriteStream): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && stream.hasColors();
}

/** 73,011 */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** 0.8903 */
export function metric(value: number | null): string {
  return value === null ? "undefined" : value.toFixed(4);
}

/** 5e-4, 4.85e-4, 0: short, and as one would type it. */
export function rate(value: number): string {
  return value === 0 ? "0" : value.toExponential(2).replace(/\.?0+e/, "e");
}

/** 884,736 bytes as 864 KB. */
export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const inKilobytes = bytes / 1024;
  return inKilobytes < 1024 ? `${Math.round(inKilobytes)} KB` : `${(inKilobytes / 1024).toFixed(1)} MB`;
}

/** 83 seconds as 1:23, an hour more as 1:01:23. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
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
