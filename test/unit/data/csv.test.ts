import { describe, expect, test } from "vitest";
import { type CsvRecord, readCsv } from "../../../lib/data/csv.js";
import { readUtf8 } from "../../../lib/data/utf8.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writtenFiles } from "../../support/written-files.js";

const temporary = temporaryFolder();
const file = writtenFiles();

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
    const missing = readUtf8(temporary.path("missing.csv"));
    await expect(missing.next()).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
    await expect(readUtf8(temporary.path()).next()).rejects.toMatchObject({
      code: "FILE_UNREADABLE",
      message: expect.stringContaining("it is a folder"),
    });
  });
});
