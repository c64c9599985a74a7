import { execFileSync } from "node:child_process";
import { appendFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { beforeAll, expect, it } from "vitest";
import { readExampleTexts } from "../../../lib/data/example-texts.js";
import {
  type ExampleSource,
  firstExamples,
  loadExamples,
  splitExamples,
} from "../../../lib/data/examples.js";
import { Tokenizer } from "../../../lib/data/tokenizer.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
let tokenizer: Tokenizer;

beforeAll(async () => {
  tokenizer = await Tokenizer.load(fileURLToPath(new URL("../../fixtures/tokenizer", import.meta.url)));
});

const ROWS = Array.from({ length: 30 }, (_, i) => `Left ${i},"Right, ${i}",${i % 2}`);

function source(name: string, text: string | Buffer): ExampleSource {
  writeFileSync(temporary.path(name), text);
  const prefixes = { question1Prefix: "query: ", question2Prefix: "query: " };
  return { path: temporary.path(name), maxLength: 16, ...prefixes };
}

const csv = (name: string) => source(name, `question1,question2,is_duplicate\n\n${ROWS.join("\n")}\n`);

it("gives texts as they stand in the file, with the row to find them by", async () => {
  const dataset = await loadExamples(csv("pairs.csv"), tokenizer);
  expect(await readExampleTexts(dataset, [7, 0], {})).toEqual([
    { place: "row 10", texts: ["Left 7", "Right, 7"] },
    { place: "row 3", texts: ["Left 0", "Right, 0"] },
  ]);
});

it("finds those of a part of the file, drawn or cut", async () => {
  const dataset = await loadExamples(csv("split.csv"), tokenizer);
  const part = splitExamples(firstExamples(dataset, 20), 0.3, 5).eval;
  const found = await readExampleTexts(part, [0, 3, 5], {});
  const records = [0, 3, 5].map((i) => part.records?.[i]);
  expect(found.map(({ texts }) => texts[0])).toEqual(records.map((i) => `Left ${i}`));
  // The labels say that they are the same examples.
  expect([0, 3, 5].map((i) => part.labels[i])).toEqual(records.map((i) => (i as number) % 2));
});

it("reads what else holds examples: gzip, JSON Lines, triplets", async () => {
  const lines = ROWS.map((_, i) => JSON.stringify({ anchor: `A ${i}`, pos: `B ${i}`, neg: `C ${i}` })).join(
    "\n",
  );
  const columns = { question1: "anchor", question2: "pos", negatives: ["neg"] };
  const given = { ...source("t.jsonl.gz", gzipSync(lines)), columns, kinds: ["negatives"] as const };
  const dataset = await loadExamples(given, tokenizer);
  expect(await readExampleTexts(dataset, [29], columns)).toEqual([
    { place: "line 30", texts: ["A 29", "B 29", "C 29"] },
  ]);
});

it("is refused for a file that changed, is gone, or can be read only once", async () => {
  const dataset = await loadExamples(csv("changing.csv"), tokenizer);
  appendFileSync(dataset.path, "x,y,1\n");
  await expect(readExampleTexts(dataset, [0], {})).rejects.toMatchObject({
    code: "FILE_UNREADABLE",
    message: expect.stringContaining("has changed"),
  });
  rmSync(dataset.path);
  await expect(readExampleTexts(dataset, [0], {})).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
  execFileSync("mkfifo", [dataset.path]);
  await expect(readExampleTexts(dataset, [0], {})).rejects.toMatchObject({
    code: "FILE_UNREADABLE",
    message: expect.stringContaining("a second time"),
  });
});
