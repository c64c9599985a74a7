import { PeftTrainError } from "../errors.js";
import { type CsvRecord, delimiterOf, readCsv } from "./csv.js";
import { place, type Table } from "./table.js";

/**
 * Opens a file with a header and reads the header; `.tsv` is separated by tabs, everything else by commas.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY; DATA_MALFORMED here or while records are read.
 */
export async function openCsvTable(file: string, onBytes?: (bytes: Uint8Array) => void): Promise<Table> {
  const groups = readCsv(file, { delimiter: delimiterOf(file), onBytes });
  for await (const group of keepOpen(groups)) {
    const at = group.findIndex((record) => !isBlank(record));
    const header = group[at];
    if (header === undefined) continue;
    const columns = header.fields;
    return {
      path: file,
      columns,
      wanted: new Set(),
      records: checkedRecords(file, columns.length, group.slice(at + 1), groups),
    };
  }
  throw new PeftTrainError("DATA_EMPTY", `${file} is empty`, {
    hint: "Expected a header line such as id,question1,question2,is_duplicate and rows below it.",
  });
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
