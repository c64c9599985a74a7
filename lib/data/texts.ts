import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { unpackedName } from "./byte-stream.js";
import { openCsvTable } from "./csv-table.js";
import { readJsonLines } from "./json-lines.js";
import { readLines } from "./lines.js";
import { columnIndex } from "./table.js";

/**
 * The texts of a file, in its order: one a line of `.txt` (blank lines are empty texts), a JSON string or an object's
 * `column` a line of `.jsonl` (blank lines are passed over), a column of `.csv` or `.tsv`.
 * @param column May be left out for a file of plain texts or of one column.
 * @throws USAGE, FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY, DATA_COLUMN or DATA_MALFORMED.
 */
export async function readTexts(file: string, column?: string): Promise<string[]> {
  const texts = await readers(file)(file, column);
  if (texts.length === 0) throw new PeftTrainError("DATA_EMPTY", `${file} holds no texts`);
  return texts;
}

type Reader = (file: string, column: string | undefined) => Promise<string[]>;

function readers(file: string): Reader {
  switch (path.extname(unpackedName(file)).toLowerCase()) {
    case ".txt":
      return textLines;
    case ".jsonl":
    case ".ndjson":
      return jsonLines;
    case ".csv":
    case ".tsv":
    case ".tab":
      return tableColumn;
    default:
      throw new PeftTrainError("USAGE", `expected texts in a .txt, .jsonl, .csv or .tsv file, got ${file}`, {
        hint: "The extension says how the file is read.",
      });
  }
}

async function textLines(file: string, column: string | undefined): Promise<string[]> {
  if (column !== undefined) {
    throw new PeftTrainError(
      "USAGE",
      `a .txt file has no columns, so ${file} has no column ${JSON.stringify(column)}`,
      {
        hint: "Leave the column out, or give a .csv, .tsv or .jsonl file.",
      },
    );
  }
  const texts: string[] = [];
  for await (const lines of readLines(file)) {
    for (const line of lines) texts.push(line);
  }
  return texts;
}

async function jsonLines(file: string, column: string | undefined): Promise<string[]> {
  const texts: string[] = [];
  for await (const group of readJsonLines(file)) {
    for (const { value, line } of group) texts.push(jsonText(value, column, `${file}, line ${line}`));
  }
  return texts;
}

function jsonText(value: unknown, column: string | undefined, where: string): string {
  if (typeof value === "string" && column === undefined) return value;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const expected = column === undefined ? "a string or an object" : "an object";
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${where}: expected ${expected}, found ${JSON.stringify(value).slice(0, 40)}`,
    );
  }
  const keys = Object.keys(value).join(", ");
  if (column === undefined) {
    throw new PeftTrainError("USAGE", `${where}: an object with the keys ${keys}, and no column was named`, {
      hint: "Name the one that holds the text, as in --column text.",
    });
  }
  if (!Object.hasOwn(value, column)) {
    throw new PeftTrainError(
      "DATA_COLUMN",
      `${where}: no key ${JSON.stringify(column)}; its keys are ${keys}`,
    );
  }
  const text = (value as Record<string, unknown>)[column];
  if (typeof text !== "string") {
    const found = JSON.stringify(text).slice(0, 40);
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${where}: expected a string under ${JSON.stringify(column)}, found ${found}`,
    );
  }
  return text;
}

async function tableColumn(file: string, column: string | undefined): Promise<string[]> {
  const table = await openCsvTable(file);
  if (column === undefined && table.columns.length > 1) {
    throw new PeftTrainError(
      "USAGE",
      `${file} has the columns ${table.columns.join(", ")}, and no column was named`,
      {
        hint: "Name the one that holds the texts, as in --column text.",
      },
    );
  }
  const index = column === undefined ? 0 : columnIndex(table, column);
  const texts: string[] = [];
  for await (const records of table.records) {
    for (const record of records) texts.push(record.fields[index] as string);
  }
  return texts;
}
