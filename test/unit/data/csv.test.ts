import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import Papa from "papaparse";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CsvRecord, readCsv } from "../../../lib/data/csv.js";
import { nearest } from "../../../lib/data/nearest.js";
import { openTable } from "../../../lib/data/open-table.js";
import { columnIndex } from "../../../lib/data/table.js";
import { readUtf8 } from "../../../lib/data/utf8.js";

let folder: string;
let files = 0;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-csv-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(content: string | Uint8Array, extension = "csv"): Promise<string> {
  const name = path.join(folder, `${files++}.${extension}`);
  await writeFile(name, content);
  return name;
}

async function read(content: string | Uint8Array, delimiter = ","): Promise<CsvRecord[]> {
  const records: CsvRecord[] = [];
  for await (const group of readCsv(await file(content), { delimiter }))
    for (const record of group) records.push(record);
  return records;
}

async function fields(content: string | Uint8Array, delimiter = ","): Promise<string[][]> {
  return (await read(content, delimiter)).map((record) => record.fields);
}

async function refusal(
  content: string | Uint8Array,
): Promise<{ code: string; message: string; hint: string }> {
  return read(content).then(
    () => expect.unreachable("the file was read"),
    (error) => error,
  );
}

describe("readCsv", () => {
  test.each([
    ["LF", "\n"],
    ["CR LF", "\r\n"],
    ["CR", "\r"],
  ])("lines that end in %s", async (_, newline) => {
    const expected = [
      ["a", "b"],
      ["1", "x, y"],
      ["2", ""],
      ["3", 'say "hi"'],
    ];
    const text = ["a,b", '1,"x, y"', "2,", '3,"say ""hi"""'].join(newline);
    expect(await fields(text)).toEqual(expected);
    expect(await fields(text + newline)).toEqual(expected);
    expect(await fields(`\ufeff${text}${newline}`)).toEqual(expected);
  });

  test("line ends may be mixed", async () => {
    expect(await fields('a,b\n1,2\r\n3,"4"\r\n"5","6"\n7,8\r')).toEqual([
      ["a", "b"],
      ["1", "2"],
      ["3", "4"],
      ["5", "6"],
      ["7", "8"],
    ]);
  });

  test("quoted fields keep their line breaks, a CR at their end too", async () => {
    for (const newline of ["\n", "\r\n"]) {
      const text = `a,b${newline}"x\ny\r\nz","q\r"${newline}1,"5\r"`;
      expect(await fields(text)).toEqual([
        ["a", "b"],
        ["x\ny\r\nz", "q\r"],
        ["1", "5\r"],
      ]);
    }
  });

  test("an inch mark in an unquoted field is only a character", async () => {
    expect(await fields('a,b\r\n5",6"\r\nx"y"z,"q"\r\n')).toEqual([
      ["a", "b"],
      ['5"', '6"'],
      ['x"y"z', "q"],
    ]);
  });

  test("NUL is kept", async () => {
    expect(await fields("a,b\nx\0y,\0\n")).toEqual([
      ["a", "b"],
      ["x\0y", "\0"],
    ]);
  });

  test("tabs", async () => {
    expect(await fields('a\tb\n1,5\t"x\ty"\n', "\t")).toEqual([
      ["a", "b"],
      ["1,5", "x\ty"],
    ]);
  });

  test("rows and lines are those that a spreadsheet and an editor show", async () => {
    const records = await read('a,b\n1,"x\ny\nz"\n\n2,w\n3,v\n');
    expect(records.map(({ row, line }) => [row, line])).toEqual([
      [1, 1],
      [2, 2],
      [3, 5],
      [4, 6],
      [5, 7],
    ]);
  });

  test("no bytes, no records", async () => {
    expect(await fields("")).toEqual([]);
    expect(await fields("\ufeff")).toEqual([]);
    expect(await fields("\n")).toEqual([[""]]);
  });

  test("a record longer than what is read at once, and many pieces of it", async () => {
    const long = 'line "one"\r\n'.repeat(200_000);
    const text = `a,b\n1,"${long.replaceAll('"', '""')}"\n2,z\n`;
    expect(await fields(text)).toEqual([
      ["a", "b"],
      ["1", long],
      ["2", "z"],
    ]);
  });

  test("every byte is seen once, in order", async () => {
    const content = Buffer.from(`a,b\n${"1,é😀\n".repeat(100_000)}`);
    const seen: Uint8Array[] = [];
    const records = [];
    const options = {
      delimiter: ",",
      onBytes: (bytes: Uint8Array) => void seen.push(Uint8Array.from(bytes)),
    };
    for await (const group of readCsv(await file(content), options))
      for (const record of group) records.push(record);
    expect(records).toHaveLength(100_001);
    expect(records.every((record) => record.row === 1 || record.fields[1] === "é😀")).toBe(true);
    expect(Buffer.concat(seen).equals(content)).toBe(true);
  });
});

describe("what readCsv refuses", () => {
  test("a quote that is never closed: where it opens", async () => {
    expect(await refusal('a,b\n1,"x"\n2,"y\n3,z\n4,w\n')).toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringMatching(/\.csv, row 3: the quoted field that opens on line 3 is never closed$/),
    });
    expect((await refusal('a,b\n1,"x\ny"\n"k\nl","y\n3,z\n')).message).toMatch(
      /row 3 \(line 4\): the quoted field that opens on line 5 is never closed$/,
    );
    expect((await refusal('a,b\n"')).message).toMatch(/row 2: .* line 2 is never closed$/);
  });

  test("a quote that is never closed early in a large file", async () => {
    const text = `a,b\n1,"x\n${"2,some more text here\n".repeat(400_000)}`;
    const start = performance.now();
    expect((await refusal(text)).message).toMatch(/row 2: .* opens on line 2 is never closed$/);
    expect(performance.now() - start).toBeLessThan(10_000);
  }, 30_000);

  test("a quote that closes only at the next one: both lines", async () => {
    expect((await refusal('a,b\n1,"x\n2,y\n3,"z"\n')).message).toMatch(
      /row 2: the quoted field that opens on line 2 goes on after its closing quote on line 4$/,
    );
  });

  test("text after a closing quote", async () => {
    const error = await refusal('a,b\n1,"say "hi" now"\n');
    expect(error.message).toMatch(/row 2: .* opens on line 2 goes on after its closing quote on line 2$/);
    expect(error.hint).toContain('("")');
  });

  test.each([
    ["a lone continuation byte", [0x61, 0x80], 1],
    ["an overlong slash", [0x61, 0x62, 0xc0, 0xaf], 2],
    ["an overlong three-byte form", [0xe0, 0x9f, 0xbf], 0],
    ["a surrogate", [0x61, 0xed, 0xa0, 0x80], 1],
    ["a code point above U+10FFFF", [0xf4, 0x90, 0x80, 0x80], 0],
    ["0xFF", [0x61, 0x0a, 0xff, 0x61], 2],
    ["Latin-1", [0x63, 0x61, 0x66, 0xe9, 0x0a], 3],
    ["a character cut at the end", [0x61, 0xe2, 0x82], 1],
  ])("bytes that are not UTF-8: %s", async (_, bytes, at) => {
    for (const before of [0, 5, 256 * 1024 - 1, 256 * 1024 - 2, 600_001]) {
      const content = Buffer.concat([Buffer.alloc(before, "x\n"), Buffer.from(bytes as number[])]);
      const offset = before + (at as number);
      const byte = (bytes as number[])[at as number]?.toString(16).toUpperCase();
      const line = 1 + content.subarray(0, offset).filter((value) => value === 0x0a).length;
      const error = await refusal(content);
      expect(error.code).toBe("DATA_MALFORMED");
      expect(error.message).toMatch(
        new RegExp(`byte 0x${byte} at byte offset ${offset} \\(line ${line}\\)$`),
      );
    }
  });

  test.each(["utf16le", "utf16be"])("UTF-16 with its mark: %s", async (encoding) => {
    const content = Buffer.from("\ufeffa,b\n1,2\n", "utf16le");
    if (encoding === "utf16be") content.swap16();
    expect(await refusal(content)).toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringContaining("UTF-16 at byte offset 0"),
    });
  });

  test("no such file, and a folder", async () => {
    const missing = readUtf8(path.join(folder, "missing.csv"));
    await expect(missing.next()).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
    await expect(readUtf8(folder).next()).rejects.toMatchObject({
      code: "FILE_UNREADABLE",
      message: expect.stringContaining("it is a folder"),
    });
  });
});

describe("openTable", () => {
  async function rows(name: string): Promise<string[][]> {
    const table = await openTable(name);
    const found: string[][] = [];
    for await (const group of table.records) found.push(...group.map((record) => record.fields));
    return found;
  }

  test("blank lines are passed over, above the header too", async () => {
    expect(await rows(await file("\n\r\na,b\n1,2\n\n3,4\n\n"))).toEqual([
      ["1", "2"],
      ["3", "4"],
    ]);
  });

  test("in a table of one column a blank line is an empty text", async () => {
    expect(await rows(await file('text\nx\n\n""\ny\n'))).toEqual([["x"], [""], [""], ["y"]]);
  });

  test.each([
    ["1,2,3", 3],
    ["1", 1],
    ["1,2,", 3],
  ])("a ragged row: %s", async (row, found) => {
    await expect(rows(await file(`a,b\n1,2\n${row}\n3,4\n`))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringMatching(
        new RegExp(`row 3: expected 2 fields as in the header, found ${found}$`),
      ),
    });
  });

  test.each(["", "\n", "\r\n\r\n", "\ufeff"])("an empty file: %j", async (content) => {
    await expect(openTable(await file(content))).rejects.toMatchObject({ code: "DATA_EMPTY" });
  });

  test("a missing column names those present and the likeliest", async () => {
    const table = await openTable(await file("id,question_1,Question2,a b\n1,2,3,4\n"));
    const refused = (name: string) => {
      try {
        columnIndex(table, name);
      } catch (error) {
        return error;
      }
      return expect.unreachable();
    };
    expect(refused("question1")).toMatchObject({
      code: "DATA_COLUMN",
      message: expect.stringMatching(
        /no column "question1"; its columns are id, question_1, Question2, "a b"$/,
      ),
      hint: 'Did you mean "question_1"?',
    });
    expect(refused("question2")).toMatchObject({ hint: 'Did you mean "Question2"?' });
    expect(refused("is_duplicate")).toMatchObject({ hint: "The first line must name the columns." });
    expect(columnIndex(table, "a b")).toBe(3);
  });

  test("a column that is there twice", async () => {
    const table = await openTable(await file("a,b,a\n1,2,3\n"));
    expect(() => columnIndex(table, "a")).toThrow(/more than one column "a"/);
    expect(columnIndex(table, "b")).toBe(1);
  });

  test.each([
    ["a;b\n1;2\n", "csv", '";"'],
    ["a\tb\n1\t2\n", "csv", ".tsv"],
    ["a,b\n1,2\n", "tsv", ".csv"],
  ])("another separator: %j in .%s", async (content, extension, hint) => {
    const table = await openTable(await file(content, extension));
    expect(() => columnIndex(table, "a")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining(hint) }),
    );
  });

  test("UTF-16 without a mark", async () => {
    const table = await openTable(await file(Buffer.from("a,b\n1,2\n", "utf16le")));
    expect(() => columnIndex(table, "a")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("UTF-16") }),
    );
  });
});

test("nearest", () => {
  expect(nearest("lable", ["id", "label", "table"])).toBe("label");
  expect(nearest("is-duplicate", ["is_duplicate"])).toBe("is_duplicate");
  expect(nearest("text", ["question1", "question2"])).toBeUndefined();
  expect(nearest("is_duplicate", ["id", "is_dup"])).toBe("is_dup");
  expect(nearest("question", ["question1", "questions"])).toBe("question1");
  expect(nearest("is", ["is_duplicate"])).toBeUndefined();
  expect(nearest("x", [])).toBeUndefined();
});

describe("random tables come back as they were", () => {
  /** RFC 4180, one character at a time: slow, and written apart from the reader under test. */
  function reference(text: string): string[][] {
    const records: string[][] = [];
    let record: string[] = [];
    let field = "";
    let state: "start" | "plain" | "quoted" | "closed" = "start";
    const endField = () => {
      record.push(field);
      field = "";
      state = "start";
    };
    for (let i = 0; i < text.length; i++) {
      const char = text[i] as string;
      if (state === "quoted") {
        if (char === '"') state = "closed";
        else field += char;
      } else if (state === "closed" && char === '"') {
        field += char;
        state = "quoted";
      } else if (state === "start" && char === '"') state = "quoted";
      else if (char === ",") endField();
      else if (char === "\n" || (char === "\r" && text[i + 1] === "\n")) {
        if (char === "\r") i++;
        endField();
        records.push(record);
        record = [];
      } else {
        field += char;
        state = "plain";
      }
    }
    if (record.length > 0 || field !== "" || state !== "start") {
      endField();
      records.push(record);
    }
    return records;
  }

  test.each([1, 2, 3, 4])(
    "seed %i",
    async (seed) => {
      let state = seed;
      const below = (n: number): number => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        return Math.floor((state / 2 ** 32) * n);
      };
      const alphabet = [
        "a",
        "b",
        " ",
        ",",
        '"',
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\0",
        "é",
        "中",
        "😀",
        "\u0301",
        ";",
        "'",
        "\ufeff",
      ];
      for (let round = 0; round < 60; round++) {
        const columns = 2 + below(4);
        const length = [4, 12, 4000][below(3)] as number;
        const table = Array.from({ length: 1 + below(40) }, () =>
          Array.from({ length: columns }, () =>
            Array.from({ length: below(length) }, () => alphabet[below(alphabet.length)]).join(""),
          ),
        );
        // A header without quotes or breaks, so that the kind of line end is known.
        table.unshift(Array.from({ length: columns }, (_, i) => `column${i}`));
        const newline = ["\n", "\r\n"][below(2)] as string;
        const text = Papa.unparse(table, { newline, quotes: below(3) === 0 });
        const found = await fields(text);
        expect(found).toEqual(table);
        expect(reference(text)).toEqual(table);
      }
    },
    60_000,
  );
});
