import { PeftTrainError } from "../errors.js";
import { nearest } from "./nearest.js";

/** One record of a table: a row counted as a spreadsheet shows it, the line that it begins on, or both. */
export interface TableRecord {
  /** A text a column. */
  fields: string[];
  row?: number;
  line?: number;
}

/** A file of records with named columns. */
export interface Table {
  path: string;
  columns: string[];
  /** Columns that were asked for; what others hold in JSON or Parquet is not looked at. */
  wanted: Set<number>;
  /** Records in file order, in groups as they are read. */
  records: AsyncGenerator<TableRecord[]>;
}

/** Where a record is, for a message. */
export function place(file: string, { row, line }: Pick<TableRecord, "row" | "line">): string {
  if (row === undefined) return `${file}, line ${line}`;
  return line === undefined || row === line ? `${file}, row ${row}` : `${file}, row ${row} (line ${line})`;
}

/** A value of JSON or Parquet as the text that a CSV file would hold. @throws DATA_MALFORMED where it is none. */
export function fieldText(value: unknown, column: string, where: string): string {
  switch (typeof value) {
    case "string":
      return value;
    case "number":
    case "bigint":
      return String(value);
    case "boolean":
      return value ? "1" : "0";
  }
  const found = value === undefined ? "nothing" : JSON.stringify(value).slice(0, 40);
  throw new PeftTrainError(
    "DATA_MALFORMED",
    `${where}: expected a text or a number in column ${column}, found ${found}`,
  );
}

/**
 * Index of a column.
 * @param flag The flag that names it, for the hint.
 * @throws DATA_COLUMN when it is not there, or there twice.
 */
export function columnIndex(table: Table, name: string, flag?: string): number {
  const index = table.columns.indexOf(name);
  if (index === -1) {
    throw new PeftTrainError(
      "DATA_COLUMN",
      `${table.path} has no column ${JSON.stringify(name)}; its columns are ${table.columns.map(shown).join(", ")}`,
      { hint: columnHint(table, name, flag) },
    );
  }
  if (table.columns.indexOf(name, index + 1) !== -1) {
    throw new PeftTrainError("DATA_COLUMN", `${table.path} has more than one column ${JSON.stringify(name)}`);
  }
  table.wanted.add(index);
  return index;
}

function columnHint(table: Table, name: string, flag: string | undefined): string {
  const header = table.columns.join("");
  if (header.includes("\0")) return "The file looks like UTF-16; convert it to UTF-8.";
  const other = [";", "\t", "|", ","].find((delimiter) => header.includes(delimiter));
  if (table.columns.length === 1 && other !== undefined) {
    return other === "\t"
      ? "The file looks separated by tabs: give it the extension .tsv."
      : `The file looks separated by ${other === "," ? "commas: give it the extension .csv." : `"${other}": save it with commas.`}`;
  }
  const suggestion = nearest(name, table.columns);
  if (suggestion !== undefined) return `Did you mean ${JSON.stringify(suggestion)}?`;
  return flag === undefined ? "The first line must name the columns." : `--${flag} names another column.`;
}

/** A column name as a message shows it: plain where it can be. */
function shown(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : JSON.stringify(name);
}
