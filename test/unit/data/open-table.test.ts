import { describe, expect, test } from "vitest";
import { openTable } from "../../../lib/data/open-table.js";
import { columnIndex } from "../../../lib/data/table.js";
import { writtenFiles } from "../../support/written-files.js";

const file = writtenFiles();

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
