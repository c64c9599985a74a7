import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const MODEL = `--model=${fileURLToPath(new URL("../../data/encoder", import.meta.url))}`;
const run = (...args: string[]) => runCli([...args, MODEL], { cwd: temporary.path() });
const TEXTS = [
  "How do I learn to swim?",
  "What is the capital of France?",
  "Which program can join several WAV files into one?",
  "How can I lose weight in a month?",
];

beforeAll(async () => {
  writeFileSync(temporary.path("texts.txt"), `${TEXTS.join("\n")}\n`);
  const { code, stderr } = await run("encode", "texts.txt", "--out=vectors.npy", "--quiet");
  expect(code, stderr).toBe(0);
});

it("prints rank, score and text of the nearest", async () => {
  const args = ["search", "Which software joins WAV files?", "--index=vectors.npy", "--texts=texts.txt"];
  const shown = await run(...args, "--top=2");
  expect(shown.code, shown.stderr).toBe(0);
  expect(shown.stdout).toMatch(/rank.*score.*text/);
  expect(shown.stdout).toMatch(/1 .*0\.\d{4}.*Which program can join several WAV files into one\?/);
  const { stdout } = await run(...args, "--json");
  const lines = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines).toHaveLength(4);
  expect(lines[0]).toEqual({ rank: 1, row: 2, score: expect.any(Number), text: TEXTS[2] });
  expect(lines.map(({ score }) => score)).toEqual(lines.map(({ score }) => score).sort((a, b) => b - a));
});

it("prints rows where no texts are given", async () => {
  const { code, stdout } = await run(
    "search",
    TEXTS[0] as string,
    "--index=vectors.npy",
    "--top",
    "1",
    "--json",
  );
  expect(code).toBe(0);
  const { row, score, ...rest } = JSON.parse(stdout);
  expect([row, rest]).toEqual([0, { rank: 1 }]);
  expect(score).toBeCloseTo(1, 5);
});

it.each([
  ["no text", ["search", "--index=vectors.npy"], /the text to search for is required/],
  ["no index", ["search", "a"], /--index is required/],
  [
    "an index of no kind",
    ["search", "a", "--index=texts.txt"],
    /--index=texts\.txt: expected a name that ends in/,
  ],
  ["none to show", ["search", "a", "--index=vectors.npy", "--top=0"], /--top=0: expected a whole number/],
  [
    "other texts",
    ["search", "a", "--index=vectors.npy", "--texts=one.txt"],
    /one\.txt has 1 texts, fewer than there are/,
  ],
] as const)("refuses %s", async (_, args, message) => {
  writeFileSync(temporary.path("one.txt"), "a\n");
  const { code, stderr } = await run(...args);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});
