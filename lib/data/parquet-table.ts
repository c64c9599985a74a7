import * as zlib from "node:zlib";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import {
  asyncBufferFromFile,
  type Compressors,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from "hyparquet";
import { PeftTrainError } from "../errors.js";
import { readBytes } from "./byte-stream.js";
import { fieldText, place, type Table, type TableRecord } from "./table.js";

/** Opens a Parquet file. It is read a row group at a time, and of it the columns that are asked for. @throws DATA_MALFORMED */
export async function openParquetTable(file: string, onBytes?: (bytes: Uint8Array) => void): Promise<Table> {
  // Parquet is read from its end, so whoever wants all bytes in order is shown them first.
  for await (const _ of readBytes(file, onBytes)) {
    // only for onBytes
  }
  const buffer = await asyncBufferFromFile(file);
  const metadata = await parquetMetadataAsync(buffer).catch((cause: unknown) => {
    throw damaged(file, cause);
  });
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  const wanted = new Set<number>();

  async function* records(): AsyncGenerator<TableRecord[]> {
    let rowStart = 0;
    for (const { num_rows } of metadata.row_groups) {
      const rowEnd = rowStart + Number(num_rows);
      const rows = await parquetReadObjects({
        file: buffer,
        metadata,
        columns: columns.filter((_, i) => wanted.has(i)),
        rowStart,
        rowEnd,
        compressors,
      }).catch((cause: unknown) => {
        throw cause instanceof PeftTrainError ? cause : damaged(file, cause);
      });
      yield rows.map((values, i) => record(values, rowStart + i + 1));
      rowStart = rowEnd;
    }
  }

  function record(values: Record<string, unknown>, row: number): TableRecord {
    const where = place(file, { row });
    const fields = columns.map((name, i) => (wanted.has(i) ? fieldText(values[name], name, where) : ""));
    return { fields, row };
  }

  return { path: file, columns, wanted, records: records() };
}

/** What the library does not unpack itself; it knows Snappy. */
const compressors: Compressors = {
  GZIP: (bytes) => gunzipSync(bytes),
  BROTLI: (bytes) => brotliDecompressSync(bytes),
  ZSTD: (bytes) => {
    if ("zstdDecompressSync" in zlib) return (zlib.zstdDecompressSync as typeof gunzipSync)(bytes);
    throw new PeftTrainError(
      "FILE_UNREADABLE",
      `Parquet compressed with Zstandard, which Node ${process.versions.node} cannot unpack`,
      {
        hint: "Use Node 22.15 or newer, or write the file with Snappy.",
      },
    );
  },
};

function damaged(file: string, cause: unknown): PeftTrainError {
  return new PeftTrainError(
    "DATA_MALFORMED",
    `${file} cannot be read as Parquet: ${(cause as Error).message}`,
    { cause },
  );
}
