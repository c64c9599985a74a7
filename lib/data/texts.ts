import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { unpackedName } from "./byte-stream.js";
import { openCsvTable } from "./csv-table.js";
import { readJsonLines } from "./json-lines.js";
import { readLines } from "./lines.js";
import { openParquetTable } from "./parquet-table.js";
import { columnIndex, type Table } from "./table.js";

/** The texts of a file, all at once; as `streamTexts`. @throws As `streamTexts`, and DATA_EMPTY. */
export async function readTexts(file: string, column?: string): Promise<string[]> {
  const texts: string[] = [];
  for await (const some of streamTexts(file, column)) for (const text of some) texts.push(text);
  if (texts.length === 0) throw new PeftTrainError("DATA_EMPTY", `${file} holds no texts`);
  return texts;
}

/**
 * The texts of a file in its order, in groups as they are read: one a line of `.txt` (blank lines are empty texts), a JSON string or an
 * object's `column` a line of `.jsonl` (blank lines are passed over), a column of `.csv`, `.tsv` or `.parquet`.
 * @param column May be left out for a file of plain texts or of one column.
 * @param onBytes Sees the bytes of the file as they are read.
 * @throws USAGE, FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY (no header), DATA_COLUMN or DATA_MALFORMED.
 */
export async function* streamTexts(
  file: string,
  column?: string,
  onBytes?: (bytes: Uint8Array) => void,
): AsyncGenerator<string[]> {
  switch (path.extname(unpackedName(file)).toLowerCase()) {
    case ".txt":
      refuseColumn(file, column);
      yield* readLines(file, onBytes);
      return;
    case ".jsonl":
    case ".ndjson":
      for await (const group of readJsonLines(file, onBytes)) {
        yield group.map(({ value, line }) => jsonText(value, column, `${file}, line ${line}`));
      }
      return;
    case ".csv":
    case ".tsv":
    case ".tab":
      yield* tableColumn(await openCsvTable(file, onBytes), column);
      return;
    case ".parquet":
      yield* tableColumn(await openParquetTable(file, onBytes), column);
      return;
    default:
      throw new PeftTrainError(
        "USAGE",
        `expected texts in a .txt, .jsonl, .csv, .tsv or .parquet file, got ${file}`,
        { hint: "The extension says how the file is read." },
      );
  }
}

function refuseColumn(file: string, column: string | undefined): void {
  if (column === undefined) return;
  throw new PeftTrainError(
    "USAGE",
    `a .txt file has no columns, so ${file} has no column ${JSON.stringify(column)}`,
    { hint: "Leave the column out, or give a .csv, .tsv or .jsonl file." },
  );
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

async function* tableColumn(table: Table, column: string | undefined): AsyncGenerator<string[]> {
  if (column === undefined && table.columns.length > 1) {
    throw new PeftTrainError(
      "USAGE",
      `${table.path} has the columns ${table.columns.join(", ")}, and no column was named`,
      { hint: "Name the one that holds the texts, as in --column text." },
    );
  }
  const index = columnIndex(table, column ?? (table.columns[0] as string));
  for await (const records of table.records) yield records.map(({ fields }) => fields[index] as string);
}
