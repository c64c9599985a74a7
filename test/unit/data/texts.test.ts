import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readTexts } from "../../../lib/data/texts.js";

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-texts-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(extension: string, content: string | Uint8Array, column?: string): Promise<string[]> {
  const file = path.join(folder, `${files++}.${extension}`);
  await writeFile(file, content);
  return readTexts(file, column);
}

describe(".txt", () => {
  test.each([
    ["a\nb\n", ["a", "b"]],
    ["a\r\nb\r\n", ["a", "b"]],
    ["a\rb\r", ["a", "b"]],
    ["a\nb", ["a", "b"]],
    ["\ufeffa\n\n b \n", ["a", "", " b "]],
    ["\n", [""]],
    ["\r\n\r\n", ["", ""]],
    ["a\r\r\nb", ["a", "", "b"]],
    ['"a, b"\0\n', ['"a, b"\0']],
  ])("%j", async (content, texts) => {
    expect(await read("txt", content)).toEqual(texts);
  });

  test("line ends that fall between two pieces of the file", async () => {
    // 256 KB are read at a time: every offset of CR LF around the seam.
    for (let shift = 0; shift < 4; shift++) {
      const first = "x".repeat(256 * 1024 - 3 + shift);
      expect(await read("txt", `${first}\r\ny\r\n`)).toEqual([first, "y"]);
      expect(await read("txt", `${first}\ry\r`)).toEqual([first, "y"]);
      expect(await read("txt", `${first}\r\r\n`)).toEqual([first, ""]);
    }
  });

  test("a line of 10 MB among others, and many lines", async () => {
    const long = "é".repeat(5 * 1024 * 1024);
    expect(await read("txt", `a\n${long}\nb\n`)).toEqual(["a", long, "b"]);
    expect(await read("txt", "line\n".repeat(300_000))).toHaveLength(300_000);
  });

  test("has no columns", async () => {
    await expect(read("txt", "a\n", "text")).rejects.toMatchObject({ code: "USAGE" });
  });
});

describe(".jsonl", () => {
  test("strings, or a key of objects", async () => {
    expect(await read("jsonl", '"a"\n\n"b\\nc"\r\n')).toEqual(["a", "b\nc"]);
    expect(await read("jsonl", '{"id":1,"text":"a"}\n{"text":"b"}', "text")).toEqual(["a", "b"]);
  });

  test.each([
    ['{"a":"x"}', undefined, "USAGE", /line 1: an object with the keys a, and no column was named/],
    ['{"a":"x"}\n{"b":"y"}', "a", "DATA_COLUMN", /line 2: no key "a"; its keys are b/],
    ['{"a":1}', "a", "DATA_MALFORMED", /line 1: expected a string under "a", found 1/],
    ['"x"\n5', undefined, "DATA_MALFORMED", /line 2: expected a string or an object, found 5/],
    ['"x"', "a", "DATA_MALFORMED", /line 1: expected an object, found "x"/],
    ['"x"\n\n{"a":', "a", "DATA_MALFORMED", /expected an object/],
    ['{"a":"x"}\n\n{"a":', "a", "DATA_MALFORMED", /line 3: not valid JSON/],
    ["[1]", undefined, "DATA_MALFORMED", /found \[1\]/],
    ["null", "a", "DATA_MALFORMED", /found null/],
    ['{"a":"x"}', "constructor", "DATA_COLUMN", /no key "constructor"/],
  ])("%j", async (content, column, code, message) => {
    await expect(read("jsonl", content, column)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe(".csv and .tsv", () => {
  test("a column", async () => {
    expect(await read("csv", 'id,text\n1,"a, b"\n2,\n', "text")).toEqual(["a, b", ""]);
    expect(await read("tsv", "id\ttext\n1\ta, b\n", "text")).toEqual(["a, b"]);
  });

  test("a file of one column needs no name; its blank lines are texts", async () => {
    expect(await read("csv", 'text\na\n\n"b\nc"\n')).toEqual(["a", "", "b\nc"]);
  });

  test("several columns need one", async () => {
    await expect(read("csv", "id,text\n1,a\n")).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("id, text"),
    });
    await expect(read("csv", "id,text\n1,a\n", "texts")).rejects.toMatchObject({
      code: "DATA_COLUMN",
      hint: 'Did you mean "text"?',
    });
  });
});

describe("what no text can come from", () => {
  test.each([
    ["txt", ""],
    ["txt", "\ufeff"],
    ["jsonl", "\n\n"],
    ["csv", ""],
    ["csv", "text\n"],
  ])("an empty .%s: %j", async (extension, content) => {
    await expect(read(extension, content)).rejects.toMatchObject({ code: "DATA_EMPTY" });
  });

  test.each(["json", "xlsx"])("a .%s", async (extension) => {
    await expect(read(extension, "a")).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining(".txt, .jsonl, .csv, .tsv or .parquet"),
    });
  });

  test("bytes that are not UTF-8", async () => {
    await expect(read("txt", Buffer.from([0x61, 0x0a, 0xe9]))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringContaining("0xE9 at byte offset 2 (line 2)"),
    });
  });

  test("a missing file", async () => {
    await expect(readTexts(path.join(folder, "none.txt"))).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
  });
});
