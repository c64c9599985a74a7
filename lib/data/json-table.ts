import { PeftTrainError } from "../errors.js";
import { type JsonLine, readJsonLines } from "./json-lines.js";
import { fieldText, place, type Table, type TableRecord } from "./table.js";

/** Opens a file of one JSON object a line; the keys of the first are its columns. @throws DATA_EMPTY or DATA_MALFORMED. */
export async function openJsonTable(file: string, onBytes?: (bytes: Uint8Array) => void): Promise<Table> {
  const groups = readJsonLines(file, onBytes);
  const first = await groups.next();
  if (first.done) {
    throw new PeftTrainError("DATA_EMPTY", `${file} is empty`, { hint: "Expected one JSON object a line." });
  }
  const columns = Object.keys(objectOf(first.value[0] as JsonLine, file));
  const wanted = new Set<number>();
  return { path: file, columns, wanted, records: records(file, columns, wanted, first.value, groups) };
}

async function* records(
  file: string,
  columns: readonly string[],
  wanted: ReadonlySet<number>,
  first: JsonLine[],
  groups: AsyncGenerator<JsonLine[]>,
): AsyncGenerator<TableRecord[]> {
  yield first.map(record);
  for await (const group of groups) yield group.map(record);

  function record(read: JsonLine): TableRecord {
    const object = objectOf(read, file);
    const { line } = read;
    const where = place(file, { line });
    const fields = columns.map((name, i) => (wanted.has(i) ? fieldText(object[name], name, where) : ""));
    return { fields, line };
  }
}

function objectOf({ value, line }: JsonLine, file: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new PeftTrainError(
    "DATA_MALFORMED",
    `${place(file, { line })}: expected an object, found ${JSON.stringify(value).slice(0, 40)}`,
  );
}
