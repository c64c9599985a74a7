import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import Papa from "papaparse";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { epochOrder, exampleBatch } from "../../../lib/data/batch.js";
import {
  type ExampleDataset,
  type ExampleSource,
  loadExamples,
  splitExamples,
} from "../../../lib/data/examples.js";
import { countRepeatedPairs, countSharedPairs } from "../../../lib/data/overlap.js";
import { Tokenizer } from "../../../lib/data/tokenizer.js";

const HEADER = "id,question1,question2,is_duplicate\n";

let folder: string;
let tokenizer: Tokenizer;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-pairs-"));
  tokenizer = await Tokenizer.load(path.join(import.meta.dirname, "../../fixtures/tokenizer"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function load(
  content: string | Uint8Array,
  options: Partial<ExampleSource> = {},
  extension = "csv",
): Promise<ExampleDataset> {
  const file = path.join(folder, `${files++}.${extension}`);
  await writeFile(file, content);
  return loadExamples(
    { path: file, question1Prefix: "", question2Prefix: "", maxLength: 16, ...options },
    tokenizer,
  );
}

function text(dataset: ExampleDataset, index: number): number[] {
  return [...dataset.ids.subarray(dataset.offsets[index], dataset.offsets[index + 1])];
}

async function encode(texts: string[], maxLength = 16): Promise<number[][]> {
  const { ids, cuSeqlens } = await tokenizer.encode(texts, maxLength);
  return texts.map((_, i) => [...ids.subarray(cuSeqlens[i], cuSeqlens[i + 1])]);
}

/** Pairs whose ids, labels and lengths all differ. */
function manyPairs(count: number): string[][] {
  const words = [
    "the",
    "best",
    "book",
    "read",
    "garden",
    "unbelievable",
    "é",
    "a, b",
    'say "hi"',
    "",
    "x\ny",
  ];
  return Array.from({ length: count }, (_, i) => [
    String(i),
    Array.from({ length: i % 7 }, (_, j) => words[(i + j) % words.length]).join(" "),
    `${words[i % words.length]} ${i}`,
    String(i % 3 === 0 ? 1 : 0),
  ]);
}

describe("loadExamples", () => {
  test("texts 2i and 2i + 1 are pair i, prefixed and cut", async () => {
    const options = { question1Prefix: "query: ", question2Prefix: "passage: ", maxLength: 6 };
    const dataset = await load(`${HEADER}7,how do I read,the best book to read,1\n8,a,,0\n`, options);
    expect(dataset.count).toBe(2);
    expect(dataset.positives).toBe(1);
    expect([...dataset.labels]).toEqual([1, 0]);
    const expected = ["query: how do I read", "passage: the best book to read", "query: a", "passage: "];
    expect([0, 1, 2, 3].map((i) => text(dataset, i))).toEqual(await encode(expected, 6));
    expect(dataset.offsets).toHaveLength(5);
    expect(dataset.offsets[4]).toBe(dataset.ids.length);
  });

  test("thousands of rows, in any order of columns, equal the texts one by one", async () => {
    const rows = manyPairs(2500);
    const reordered = rows.map(([id, q1, q2, label]) => [label, q2, id, q1]);
    const content = Papa.unparse([["is_duplicate", "question2", "id", "question1"], ...reordered]);
    const dataset = await load(content);
    const expected = await encode(rows.flatMap(([, q1, q2]) => [q1 as string, q2 as string]));
    expect(dataset.count).toBe(2500);
    expect(expected.map((_, i) => text(dataset, i))).toEqual(expected);
    expect([...dataset.labels]).toEqual(rows.map((row) => Number(row[3])));
    expect(dataset.positives).toBe(rows.filter((row) => row[3] === "1").length);
  });

  test("LF, CR LF, CR, a byte order mark and tabs give the same pairs", async () => {
    const lf = `${HEADER}1,the book,"read, write",1\n2,garden,a,0\n`;
    const expected = await load(lf);
    for (const [content, extension] of [
      [lf.replaceAll("\n", "\r\n"), "csv"],
      [lf.replaceAll("\n", "\r"), "csv"],
      [`\ufeff${lf}`, "csv"],
      [lf.trimEnd(), "CSV"],
      [lf.replaceAll(/,(?! )/g, "\t"), "tsv"],
    ] as const) {
      const { ids, offsets, labels } = await load(content, {}, extension);
      expect({ ids, offsets, labels }).toEqual({
        ids: expected.ids,
        offsets: expected.offsets,
        labels: expected.labels,
      });
    }
  });

  test("other column names", async () => {
    const columns = { question1: "left", question2: "right", label: "same" };
    const dataset = await load("left,right,same\nthe,book,1\n", { columns });
    expect([text(dataset, 0), text(dataset, 1)]).toEqual(await encode(["the", "book"]));
    const named = await load("question1,question2,label\na,b,0\n", { columns: { label: "label" } });
    expect(named.count).toBe(1);
  });

  test("the fingerprint is that of the file", async () => {
    const content = Buffer.from(`\ufeff${HEADER}${"1,é 中,b,0\r\n".repeat(60_000)}`);
    const dataset = await load(content);
    expect(dataset.sha256).toBe(createHash("sha256").update(content).digest("hex"));
    expect(dataset.count).toBe(60_000);
  });

  test("progress counts every byte", async () => {
    const file = path.join(folder, "progress.csv");
    await writeFile(file, HEADER + "1,the book,a garden,1\n".repeat(40_000));
    const size = (await readFile(file)).length;
    const seen: [number, number][] = [];
    const source = { path: file, question1Prefix: "", question2Prefix: "", maxLength: 8 };
    await loadExamples(source, tokenizer, (read, total) => void seen.push([read, total]));
    expect(seen.length).toBeGreaterThan(2);
    expect(seen.every(([read, total], i) => total === size && read > (seen[i - 1]?.[0] ?? 0))).toBe(true);
    expect(seen.at(-1)).toEqual([size, size]);
  });

  test.each([
    ["0", 0],
    ["1", 1],
  ])("one class only: every label %s", async (label, positive) => {
    const dataset = await load(`${HEADER}1,a,b,${label}\n2,c,d,${label}\n`);
    expect([dataset.count, dataset.positives]).toEqual([2, 2 * positive]);
  });

  test("labels as pandas writes them", async () => {
    const dataset = await load(`${HEADER}1,a,b,1.0\n2,c,d, 0 \n3,e,f,1.\n`);
    expect([...dataset.labels]).toEqual([1, 0, 1]);
  });

  test("empty and blank texts are [CLS] [SEP]", async () => {
    const dataset = await load(`${HEADER}1,,"  ",0\n`);
    expect(text(dataset, 0)).toEqual([tokenizer.clsId, tokenizer.sepId]);
    expect(text(dataset, 1)).toEqual([tokenizer.clsId, tokenizer.sepId]);
  });

  test("a text of 10 MB", async () => {
    const dataset = await load(`${HEADER}1,"${"the best\n".repeat(1_200_000)}",a,0\n`);
    expect(text(dataset, 0)).toHaveLength(16);
    expect(text(dataset, 1)).toHaveLength(3);
  }, 60_000);
});

describe("what loadExamples refuses", () => {
  test.each(["2", "-1", "", "NaN", "true", "0.5", "10", "1e0", "１"])("the label %j", async (label) => {
    await expect(load(`${HEADER}1,a,"b\nc",1\n2,c,d,${label}\n`)).rejects.toMatchObject({
      name: "PeftTrainError",
      code: "DATA_LABEL",
      message: expect.stringMatching(
        new RegExp(`row 3 \\(line 4\\): expected 0 or 1 in column is_duplicate, found "${label}"$`),
      ),
    });
  });

  test("a text where the label should be is shown cut", async () => {
    const error = await load(`${HEADER}1,a,b,${"long ".repeat(100)}\n`).catch((caught) => caught);
    expect(error.message.length).toBeLessThan(200 + folder.length);
  });

  test.each([
    ["", "DATA_EMPTY", /is empty$/],
    ["\n\n", "DATA_EMPTY", /is empty$/],
    [HEADER, "DATA_EMPTY", /header and no rows/],
    [`${HEADER}\n\n`, "DATA_EMPTY", /header and no rows/],
    [
      "id,question1,question2\n1,a,b\n",
      "DATA_COLUMN",
      /"is_duplicate"; its columns are id, question1, question2$/,
    ],
    ["question1,question2,is_duplicate\na,b\n", "DATA_MALFORMED", /row 2: expected 3 fields .* found 2$/],
    [`${HEADER}1,a,"b,1\n`, "DATA_MALFORMED", /row 2: .* opens on line 2 is never closed$/],
  ])("%j", async (content, code, message) => {
    await expect(load(content)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test("a missing file, and a folder", async () => {
    const source = { question1Prefix: "", question2Prefix: "", maxLength: 8 };
    await expect(
      loadExamples({ ...source, path: path.join(folder, "no.csv") }, tokenizer),
    ).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
    });
    await expect(loadExamples({ ...source, path: folder }, tokenizer)).rejects.toMatchObject({
      code: "FILE_UNREADABLE",
    });
  });
});

describe("exampleBatch", () => {
  test("gathers pairs in the order asked for, repeats too", async () => {
    const dataset = await load(Papa.unparse([HEADER.trim().split(","), ...manyPairs(40)]));
    const indices = Int32Array.from([39, 0, 7, 7, 12]);
    const batch = exampleBatch(dataset, indices);
    expect(batch.cuSeqlens).toHaveLength(11);
    const gathered = Array.from({ length: 10 }, (_, i) => [
      ...batch.ids.subarray(batch.cuSeqlens[i], batch.cuSeqlens[i + 1]),
    ]);
    expect(gathered).toEqual([...indices].flatMap((i) => [text(dataset, 2 * i), text(dataset, 2 * i + 1)]));
    expect([...batch.labels]).toEqual([...indices].map((i) => dataset.labels[i]));
    expect(batch.ids.length).toBe(batch.cuSeqlens[10]);
  });

  test("no pairs", async () => {
    const batch = exampleBatch(await load(`${HEADER}1,a,b,1\n`), new Int32Array());
    expect([[...batch.ids], [...batch.cuSeqlens], [...batch.labels]]).toEqual([[], [0], []]);
  });

  test("the batches of an epoch hold every pair once", async () => {
    const dataset = await load(Papa.unparse([HEADER.trim().split(","), ...manyPairs(33)]));
    const order = epochOrder(dataset.count, 42, 1);
    const seen = new Map<string, number>();
    let tokens = 0;
    for (let i = 0; i < order.length; i += 8) {
      const batch = exampleBatch(dataset, order.subarray(i, i + 8));
      tokens += batch.ids.length;
      for (let j = 0; j < batch.labels.length; j++) {
        const key = batch.ids.subarray(batch.cuSeqlens[2 * j], batch.cuSeqlens[2 * j + 2]).join();
        seen.set(key, (seen.get(key) ?? 0) + 1);
      }
    }
    expect(tokens).toBe(dataset.ids.length);
    expect([...seen.values()].reduce((sum, times) => sum + times)).toBe(33);
  });
});

describe("splitExamples", () => {
  test("parts the pairs, keeps the file's order and depends on the seed alone", async () => {
    const dataset = await load(Papa.unparse([HEADER.trim().split(","), ...manyPairs(200)]));
    const split = splitExamples(dataset, 0.25, 42);
    expect([split.train.count, split.eval.count]).toEqual([150, 50]);
    expect(split.train.positives + split.eval.positives).toBe(dataset.positives);
    expect(split.train.sha256).toBe(dataset.sha256);
    const pair = (from: ExampleDataset, i: number) => [
      text(from, 2 * i),
      text(from, 2 * i + 1),
      from.labels[i],
    ];
    const all = Array.from({ length: 200 }, (_, i) => JSON.stringify(pair(dataset, i)));
    const places = [split.train, split.eval].map((part) =>
      Array.from({ length: part.count }, (_, i) => all.indexOf(JSON.stringify(pair(part, i)))),
    );
    expect([...(places[0] as number[]), ...(places[1] as number[])].sort((a, b) => a - b)).toEqual([
      ...all.keys(),
    ]);
    for (const part of places) expect(part).toEqual([...part].sort((a, b) => a - b));
    expect(splitExamples(dataset, 0.25, 42)).toEqual(split);
    expect(splitExamples(dataset, 0.25, 43).eval.ids).not.toEqual(split.eval.ids);
    // The pairs set apart are not simply the first ones of an epoch.
    expect(places[1]).not.toEqual([...epochOrder(200, 42, 0).slice(0, 50)].sort((a, b) => a - b));
  });

  test("neither part is ever empty", async () => {
    const dataset = await load(`${HEADER}1,a,b,1\n2,c,d,0\n`);
    for (const fraction of [1e-9, 0.5, 0.999]) {
      const { train, eval: evaluation } = splitExamples(dataset, fraction, 1);
      expect([train.count, evaluation.count]).toEqual([1, 1]);
    }
  });

  test.each([0, 1, -0.1, 1.5, Number.NaN])("a fraction of %s is refused", async (fraction) => {
    const dataset = await load(`${HEADER}1,a,b,1\n2,c,d,0\n`);
    expect(() => splitExamples(dataset, fraction, 1)).toThrow(expect.objectContaining({ code: "USAGE" }));
  });

  test("one pair cannot be parted", async () => {
    const dataset = await load(`${HEADER}1,a,b,1\n`);
    expect(() => splitExamples(dataset, 0.5, 1)).toThrow(expect.objectContaining({ code: "DATA_EMPTY" }));
  });
});

describe("overlap", () => {
  test("counts pairs of the same ids, whatever their label", async () => {
    const train = await load(`${HEADER}1,the book,a,1\n2,THE  BOOK,a,0\n3,a,the book,0\n4,the,book a,0\n`);
    const other = await load(`${HEADER}9,the book,a,0\n8,garden,a,0\n7,the,book a,1\n9,the book,a,0\n`);
    expect(countRepeatedPairs(train)).toBe(1);
    expect(countRepeatedPairs(other)).toBe(1);
    expect(countSharedPairs(train, other)).toBe(3);
    expect(countSharedPairs(other, train)).toBe(3);
  });

  test("the parts of a split share nothing but repeats", async () => {
    const dataset = await load(Papa.unparse([HEADER.trim().split(","), ...manyPairs(300)]));
    expect(countRepeatedPairs(dataset)).toBe(0);
    const { train, eval: evaluation } = splitExamples(dataset, 0.3, 5);
    expect(countSharedPairs(train, evaluation)).toBe(0);
    expect(countSharedPairs(dataset, evaluation)).toBe(evaluation.count);
  });
});
