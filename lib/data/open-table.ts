import path from "node:path";
import { unpackedName } from "./byte-stream.js";
import { openCsvTable } from "./csv-table.js";
import { openJsonTable } from "./json-table.js";
import type { Table } from "./table.js";

/**
 * Opens a file of records by its extension, before a .gz: JSON Lines, Parquet, or text with a header line.
 * @param onBytes Sees every byte of the file once, in order.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY; DATA_MALFORMED here or while records are read.
 */
export async function openTable(file: string, onBytes?: (bytes: Uint8Array) => void): Promise<Table> {
  switch (path.extname(unpackedName(file)).toLowerCase()) {
    case ".jsonl":
    case ".ndjson":
    case ".json":
      return openJsonTable(file, onBytes);
    case ".parquet":
      return (await import("./parquet-table.js")).openParquetTable(file, onBytes);
    default:
      return openCsvTable(file, onBytes);
  }
}
