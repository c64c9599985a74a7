import { PeftTrainError } from "../errors.js";
import { type CsvRecord, delimiterOf, place, readCsv } from "./csv.js";
import { nearest } from "./nearest.js";

/** A CSV or TSV file with a header. */
export interface Table {
  path: string;
  columns: string[];
  /** Records in file order, in groups as they are read; each has as many fields as there are columns. */
  records: AsyncGenerator<CsvRecord[]>;
}

/**
 * Opens a file with a header and reads the header; `.tsv` is separated by tabs, everything else by commas.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY; DATA_MALFORMED here or while records are read.
 */
export async function openTable(file: string, onBytes?: (bytes: Uint8Array) => void): Promise<Table> {
  const groups = readCsv(file, { delimiter: delimiterOf(file), onBytes });
  for await (const group of keepOpen(groups)) {
    const at = group.findIndex((record) => !isBlank(record));
    const header = group[at];
    if (header === undefined) continue;
    const columns = header.fields;
    return {
      path: file,
      columns,
      records: checkedRecords(file, columns.length, group.slice(at + 1), groups),
    };
  }
  throw new PeftTrainError("DATA_EMPTY", `${file} is empty`, {
    hint: "Expected a header line such as id,question1,question2,is_duplicate and rows below it.",
  });
}

/** Index of a column. @throws DATA_COLUMN when it is not there, or there twice. */
export function columnIndex(table: Table, name: string): number {
  const index = table.columns.indexOf(name);
  if (index === -1) {
    throw new PeftTrainError(
      "DATA_COLUMN",
      `${table.path} has no column ${JSON.stringify(name)}; its columns are ${table.columns.map(shown).join(", ")}`,
      { hint: columnHint(table, name) },
    );
  }
  if (table.columns.indexOf(name, index + 1) !== -1) {
    throw new PeftTrainError("DATA_COLUMN", `${table.path} has more than one column ${JSON.stringify(name)}`);
  }
  return index;
}

function columnHint(table: Table, name: string): string {
  const header = table.columns.join("");
  if (header.includes("\0")) return "The file looks like UTF-16; convert it to UTF-8.";
  const other = [";", "\t", "|", ","].find((delimiter) => header.includes(delimiter));
  if (table.columns.length === 1 && other !== undefined) {
    return other === "\t"
      ? "The file looks separated by tabs: give it the extension .tsv."
      : `The file looks separated by ${other === "," ? "commas: give it the extension .csv." : `"${other}": save it with commas.`}`;
  }
  const suggestion = nearest(name, table.columns);
  return suggestion === undefined
    ? "The first line must name the columns."
    : `Did you mean ${JSON.stringify(suggestion)}?`;
}

async function* checkedRecords(
  file: string,
  columns: number,
  first: CsvRecord[],
  groups: AsyncGenerator<CsvRecord[]>,
): AsyncGenerator<CsvRecord[]> {
  yield check(first);
  for await (const group of groups) yield check(group);

  function check(group: CsvRecord[]): CsvRecord[] {
    // In a table of one column a blank line is an empty text.
    const records = columns === 1 ? group : group.filter((record) => !isBlank(record));
    for (const record of records) {
      if (record.fields.length === columns) continue;
      throw new PeftTrainError(
        "DATA_MALFORMED",
        `${place(file, record)}: expected ${columns} fields as in the header, found ${record.fields.length}`,
        { hint: "A text that holds the separator needs double quotes around it." },
      );
    }
    return records;
  }
}

function isBlank(record: CsvRecord): boolean {
  return record.fields.length === 1 && record.fields[0] === "";
}

/** Leaves the generator open when the loop over it is left. */
function keepOpen<T>(generator: AsyncGenerator<T>): AsyncIterable<T> {
  return { [Symbol.asyncIterator]: () => ({ next: () => generator.next() }) };
}

/** A column name as a message shows it: plain where it can be. */
function shown(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : JSON.stringify(name);
}
