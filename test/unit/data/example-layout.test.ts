import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exampleBatch } from "../../../lib/data/batch.js";
import type { ExampleFormat, ExampleKind } from "../../../lib/data/example-layout.js";
import {
  type ExampleDataset,
  firstExamples,
  loadExamples,
  positivePairs,
  splitExamples,
} from "../../../lib/data/examples.js";
import { Tokenizer } from "../../../lib/data/tokenizer.js";

let folder: string;
let tokenizer: Tokenizer;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-layout-"));
  tokenizer = await Tokenizer.load(path.join(import.meta.dirname, "../../fixtures/tokenizer"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function load(content: string, format: ExampleFormat): Promise<ExampleDataset> {
  const file = path.join(folder, `${files++}.csv`);
  await writeFile(file, content);
  const prefixes = { question1Prefix: "the ", question2Prefix: "a " };
  return loadExamples({ path: file, ...prefixes, maxLength: 16, ...format }, tokenizer);
}

async function idsOf(...texts: string[]): Promise<number[][]> {
  const { ids, cuSeqlens } = await tokenizer.encode(texts, 16);
  return texts.map((_, i) => [...ids.subarray(cuSeqlens[i], cuSeqlens[i + 1])]);
}

function texts({ ids, offsets }: ExampleDataset): number[][] {
  return Array.from({ length: offsets.length - 1 }, (_, i) => [...ids.subarray(offsets[i], offsets[i + 1])]);
}

const ALL = "question1,question2,is_duplicate,score,n1,n2\n";
const ROWS = `${ALL}book,read,1,0.75,garden,best\nbest,book,0,-0.5,read,the\nread,best,1,2e-1,a,book\n`;
const columns = { score: "score", negatives: ["n2", "n1"] };

describe("an example", () => {
  const kinds: [ExampleKind, number, number[]][] = [
    ["labels", 2, [1, 0, 1]],
    ["scores", 2, [0.75, -0.5, 0.2]],
    ["positives", 2, []],
    ["negatives", 4, []],
  ];
  for (const [kind, textsPerExample, labels] of kinds) {
    test(`of kind ${kind}`, async () => {
      const dataset = await load(ROWS, { kinds: [kind], columns });
      const positives = kind === "labels" ? 2 : 0;
      expect(dataset).toMatchObject({ kind, textsPerExample, count: 3, positives });
      expect([...dataset.labels]).toEqual([...Float32Array.from(labels)]);
      const first = ["the book", "a read", "a best", "a garden"].slice(0, textsPerExample);
      expect(texts(dataset).slice(0, textsPerExample)).toEqual(await idsOf(...first));
    });
  }

  test("is the first kind whose columns are there", async () => {
    const read = async (content: string, ...kinds: ExampleKind[]) =>
      (await load(content, { kinds, columns })).kind;
    expect(await read(ROWS, "negatives", "labels")).toBe("negatives");
    expect(await read("question1,question2,n1,is_duplicate\na,b,c,1\n", "negatives", "labels")).toBe(
      "labels",
    );
    expect(await read("question1,question2\na,b\n", "labels", "positives")).toBe("positives");
    await expect(read("question1,question2,label\na,b,1\n", "scores", "labels")).rejects.toMatchObject({
      code: "DATA_COLUMN",
      message: expect.stringContaining('no column "score"'),
      hint: "--score_column names another column.",
    });
    await expect(read("question1,text\na,b\n", "labels", "positives")).rejects.toMatchObject({
      message: expect.stringContaining('no column "question2"'),
    });
  });

  test("with a score that is none is refused by its row", async () => {
    const format: ExampleFormat = { kinds: ["scores"], columns, scoreRange: [-1, 1] };
    for (const score of ["", "high", "NaN", "1.01", "-2", "0,5"]) {
      await expect(load(`question1,question2,score\na,b,1\na,b,"${score}"\n`, format)).rejects.toMatchObject({
        code: "DATA_LABEL",
        message: expect.stringContaining(
          `row 3: expected a number from -1 to 1 in column score, found "${score}"`,
        ),
      });
    }
    const { labels } = await load("question1,question2,score\na,b, 1e3 \n", { kinds: ["scores"], columns });
    expect([...labels]).toEqual([1000]);
  });
});

describe("sets of examples", () => {
  test("are gathered into batches whole", async () => {
    const dataset = await load(ROWS, { kinds: ["negatives"], columns });
    const batch = exampleBatch(dataset, Int32Array.of(2, 0));
    expect(batch.textsPerExample).toBe(4);
    expect(batch.labels).toHaveLength(0);
    const all = texts(dataset);
    const found = Array.from({ length: 8 }, (_, i) => [
      ...batch.ids.subarray(batch.cuSeqlens[i], batch.cuSeqlens[i + 1]),
    ]);
    expect(found).toEqual([...all.slice(8, 12), ...all.slice(0, 4)]);
  });

  test("give their positive pairs, their first and their parts", async () => {
    const dataset = await load(ROWS, { kinds: ["labels"] });
    const all = texts(dataset);
    const positive = positivePairs(dataset);
    expect(positive).toMatchObject({ kind: "positives", count: 2, textsPerExample: 2 });
    expect(positive.labels).toHaveLength(0);
    expect(texts(positive)).toEqual([...all.slice(0, 2), ...all.slice(4)]);
    const triplets = await load(ROWS, { kinds: ["negatives"], columns });
    expect(texts(firstExamples(triplets, 2))).toEqual(texts(triplets).slice(0, 8));
    expect(firstExamples(triplets, 5).count).toBe(3);
    const { train, eval: held } = splitExamples(triplets, 0.4, 3);
    expect([train.count, held.count]).toEqual([2, 1]);
    expect([...texts(train), ...texts(held)].map(String).sort()).toEqual(texts(triplets).map(String).sort());
  });
});
