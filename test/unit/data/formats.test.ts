import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import zlib, { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ExampleDataset, type ExampleSource, loadExamples } from "../../../lib/data/examples.js";
import { readTexts } from "../../../lib/data/texts.js";
import { Tokenizer } from "../../../lib/data/tokenizer.js";

const FIXTURES = path.join(import.meta.dirname, "../../fixtures");
const ROWS = Array.from({ length: 7 }, (_, i) => ({
  question1: `the best book ${i}`,
  question2: `which book, é ${i % 3}?`,
  is_duplicate: i % 2,
  similar: i % 2 === 0,
  score: i / 4,
}));
const HEADER = Object.keys(ROWS[0] as object);

let folder: string;
let tokenizer: Tokenizer;
let expected: ExampleDataset;
let files = 0;

const csv = (separator: string): string =>
  [HEADER, ...ROWS.map((row) => Object.values(row))]
    .map((fields) => fields.map((field) => `"${field}"`).join(separator))
    .join("\n");
const jsonLines = (): string => ROWS.map((row) => JSON.stringify(row)).join("\n");

async function write(content: string | Uint8Array, extension: string): Promise<string> {
  const file = path.join(folder, `${files++}.${extension}`);
  await writeFile(file, content);
  return file;
}

function load(file: string, options: Partial<ExampleSource> = {}): Promise<ExampleDataset> {
  const source = { path: file, question1Prefix: "", question2Prefix: "", maxLength: 16, ...options };
  return loadExamples(source, tokenizer);
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-formats-"));
  tokenizer = await Tokenizer.load(path.join(FIXTURES, "tokenizer"));
  expected = await load(await write(csv(","), "csv"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** That a file gives what the CSV file gave, and the hash of its own bytes. */
async function expectSame(file: string): Promise<void> {
  const sha256 = createHash("sha256")
    .update(await readFile(file))
    .digest("hex");
  expect(await load(file)).toEqual({ ...expected, path: file, sha256 });
}

describe("the same examples", () => {
  test("from JSON lines, keys in any order", async () => {
    await expectSame(await write(jsonLines(), "jsonl"));
    await expectSame(await write(`\n${jsonLines()}\n\n`, "ndjson"));
    const turned = ROWS.map((row) => JSON.stringify(Object.fromEntries(Object.entries(row).reverse())));
    await expectSame(await write(turned.join("\r\n"), "json"));
  });

  test("from gzip, whatever its name says", async () => {
    await expectSame(await write(gzipSync(csv(",")), "csv.gz"));
    await expectSame(await write(gzipSync(csv("\t")), "tsv.gz"));
    await expectSame(await write(gzipSync(jsonLines()), "jsonl.gz"));
    await expectSame(await write(gzipSync(csv(",")), "csv"));
    await expectSame(await write(csv(","), "csv.GZ"));
  });

  test("from gzip in several members, as cat of two files makes it", async () => {
    const [head, ...rest] = csv(",").split(/(?<=\n)/);
    await expectSame(
      await write(Buffer.concat([gzipSync(head as string), gzipSync(rest.join(""))]), "csv.gz"),
    );
  });

  const codecs = ["none", "snappy", "gzip", "brotli", "v2"];
  for (const codec of "zstdDecompressSync" in zlib ? [...codecs, "zstd"] : codecs) {
    test(`from Parquet: ${codec}`, () => expectSame(path.join(FIXTURES, `tables/${codec}.parquet`)));
  }

  test("with labels of true and false", async () => {
    for (const file of [path.join(FIXTURES, "tables/snappy.parquet"), await write(jsonLines(), "jsonl")]) {
      const { labels } = await load(file, { columns: { label: "similar" } });
      expect([...labels]).toEqual([1, 0, 1, 0, 1, 0, 1]);
    }
  });

  test("with what other columns hold unread", async () => {
    const lines = ROWS.map((row, i) =>
      JSON.stringify({ tags: [i], ...row, ...(i > 2 ? { more: null } : {}) }),
    );
    await expectSame(await write(lines.join("\n"), "jsonl"));
  });
});

test("texts of a gzip file", async () => {
  expect(await readTexts(await write(gzipSync("a\nb\n"), "txt.gz"))).toEqual(["a", "b"]);
  expect(await readTexts(await write(gzipSync('"a"\n"b"\n'), "jsonl.gz"))).toEqual(["a", "b"]);
});

describe("what is refused", () => {
  const cases: [
    what: string,
    content: string | Uint8Array,
    extension: string,
    code: string,
    message: string,
  ][] = [
    ["an empty file", "", "jsonl", "DATA_EMPTY", "is empty"],
    ["an empty gzip file", gzipSync(""), "jsonl.gz", "DATA_EMPTY", "is empty"],
    [
      "broken JSON",
      `${jsonLines()}\n\n{"question1": `,
      "jsonl",
      "DATA_MALFORMED",
      ", line 9: not valid JSON",
    ],
    ["a list", `${jsonLines()}\n[1]`, "jsonl", "DATA_MALFORMED", ", line 8: expected an object, found [1]"],
    ["a list first", '["a"]', "jsonl", "DATA_MALFORMED", ", line 1: expected an object"],
    [
      "a missing key",
      `${jsonLines()}\n{}`,
      "jsonl",
      "DATA_MALFORMED",
      ", line 8: expected a text or a number in column question1, found nothing",
    ],
    [
      "a null",
      jsonLines().replace(/"which[^"]*"/, "null"),
      "jsonl",
      "DATA_MALFORMED",
      ", line 1: expected a text or a number in column question2, found null",
    ],
    [
      "a label that is none",
      jsonLines().replace('"is_duplicate":1', '"is_duplicate":2'),
      "jsonl",
      "DATA_LABEL",
      ', line 2: expected 0 or 1 in column is_duplicate, found "2"',
    ],
    [
      "another column",
      '{"question1": "a", "question2": "b", "label": 1}',
      "jsonl",
      "DATA_COLUMN",
      'no column "is_duplicate"; its columns are question1, question2, label',
    ],
    [
      "gzip that is cut off",
      gzipSync(`${jsonLines()}\n`.repeat(50)).subarray(0, 200),
      "jsonl.gz",
      "DATA_MALFORMED",
      "is damaged gzip data: unexpected end of file",
    ],
    [
      "gzip that is damaged",
      gzipSync(csv(",")).fill(0, 20, 40),
      "csv.gz",
      "DATA_MALFORMED",
      "is damaged gzip data",
    ],
    [
      "latin1 in gzip",
      gzipSync(Buffer.from("question1,é\n", "latin1")),
      "csv.gz",
      "DATA_MALFORMED",
      "found byte 0xE9 at byte offset 10 (line 1)",
    ],
    ["CSV as Parquet", csv(","), "parquet", "DATA_MALFORMED", "cannot be read as Parquet"],
    ["an empty Parquet file", "", "parquet", "DATA_MALFORMED", "cannot be read as Parquet"],
  ];
  for (const [what, content, extension, code, message] of cases) {
    test(what, async () => {
      await expect(load(await write(content, extension))).rejects.toMatchObject({
        code,
        message: expect.stringContaining(message),
      });
    });
  }

  test("a list over many lines, with a way to make lines of it", async () => {
    await expect(load(await write('[\n{"question1": "a"}\n]', "json"))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      hint: expect.stringContaining("jq -c '.[]'"),
    });
  });

  test("a null in Parquet, by its row", async () => {
    await expect(load(path.join(FIXTURES, "tables/null.parquet"))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringContaining(
        "null.parquet, row 6: expected a text or a number in column question2, found null",
      ),
    });
  });

  test("Parquet in a compression that nothing here unpacks", async () => {
    await expect(load(path.join(FIXTURES, "tables/lz4.parquet"))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringContaining("unsupported compression codec: LZ4"),
    });
  });

  test("files that are not there", async () => {
    for (const name of ["no.jsonl", "no.csv.gz", "no.parquet"]) {
      await expect(load(path.join(folder, name))).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
    }
  });
});
