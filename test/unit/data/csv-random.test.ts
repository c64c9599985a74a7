import Papa from "papaparse";
import { describe, expect, test } from "vitest";
import { readCsv } from "../../../lib/data/csv.js";
import { writtenFiles } from "../../support/written-files.js";

const file = writtenFiles();

async function fields(content: string): Promise<string[][]> {
  const found: string[][] = [];
  for await (const group of readCsv(await file(content), { delimiter: "," }))
    found.push(...group.map((record) => record.fields));
  return found;
}

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
