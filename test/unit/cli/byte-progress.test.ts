import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { ByteProgress } from "../../../lib/cli/display/byte-progress.js";
import { ItemProgress } from "../../../lib/cli/display/item-progress.js";

function screen(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
  const stream = Object.assign(new PassThrough(), {
    isTTY,
    columns: 120,
    rows: 24,
    cursorTo() {},
    clearLine() {},
    moveCursor() {},
  });
  const parts: string[] = [];
  stream.on("data", (data) => parts.push(String(data)));
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => parts.join("") };
}

test("elsewhere than on a terminal: a line a quarter, without control characters", () => {
  const { stream, text } = screen(false);
  const progress = new ByteProgress("Reading x.csv", stream);
  for (let read = 10; read <= 1000; read += 10) progress.update(read, 1000);
  progress.stop();
  const lines = [25, 50, 75, 100].map((percent) => `Reading x.csv: ${percent} %\n`);
  expect(text()).toBe(lines.join(""));
});

test("a small file is read in one piece", () => {
  const { stream, text } = screen(false);
  new ByteProgress("Reading", stream).update(7, 7);
  expect(text()).toBe("Reading: 100 %\n");
});

test("on a terminal: a bar with sizes, gone after the end", () => {
  const { stream, text } = screen(true);
  const progress = new ByteProgress("Reading x.csv", stream);
  progress.update(1024 * 1024, 4 * 1024 * 1024);
  progress.update(4 * 1024 * 1024, 4 * 1024 * 1024);
  progress.stop();
  progress.stop();
  expect(text()).toContain("Reading x.csv");
  expect(text()).toContain("of 4.0 MB");
});

test("at the start of a file the time left is not known yet, and not infinite", () => {
  for (const first of [0, 1]) {
    const { stream, text } = screen(true);
    const progress = new ByteProgress("Reading x.csv", stream);
    progress.update(first, 1024 * 1024);
    progress.stop();
    expect(text()).toMatch(first === 0 ? /\| \? left/ : /\| [\d:]+ left/);
    expect(text()).not.toMatch(/NF|NaN|Inf/i);
  }
});

test("of items too", () => {
  const { stream, text } = screen(true);
  const progress = new ItemProgress("Encoding", "texts", stream);
  progress.update(0, 10);
  progress.stop();
  expect(text()).toContain("0/10 texts | ? left");
});

test("a size that is not known shows nothing", () => {
  const { stream, text } = screen(false);
  const progress = new ByteProgress("Reading", stream);
  progress.update(10, 0);
  progress.stop();
  expect(text()).toBe("");
});
