import { type FileHandle, open } from "node:fs/promises";
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { PeftTrainError } from "../errors.js";
import { fileError } from "./file-error.js";
import { readJsonLines } from "./json-lines.js";
import { orList, VECTOR_EXTENSIONS, vectorExtension } from "./vectors.js";

/** Vectors that lie one after another in a file. */
export interface VectorBlock {
  /** [rows, dim] */
  values: Float32Array;
  dim: number;
}

const BLOCK_BYTES = 16 * 1024 * 1024;

/**
 * The vectors of a file that `encode` wrote, a block at a time, so that memory does not grow with the file.
 * @throws USAGE for another extension, FILE_NOT_FOUND, FILE_UNREADABLE, DATA_MALFORMED.
 */
export async function* readVectorBlocks(file: string): AsyncGenerator<VectorBlock> {
  switch (vectorExtension(file)) {
    case ".npy":
      yield* npyBlocks(file);
      return;
    case ".jsonl":
      for await (const group of readJsonLines(file)) {
        yield joined(
          group.map(({ value }) => value),
          (i) => `${file}, line ${group[i]?.line}`,
        );
      }
      return;
    case ".parquet":
      yield* parquetBlocks(file);
      return;
    default:
      throw new PeftTrainError(
        "USAGE",
        `expected vectors in a ${orList(VECTOR_EXTENSIONS)} file, got ${file}`,
      );
  }
}

async function* npyBlocks(file: string): AsyncGenerator<VectorBlock> {
  const handle = await open(file).catch((cause: unknown) => {
    throw fileError(file, cause);
  });
  try {
    const { start, rows, dim } = await npyHeader(file, handle);
    const rowsABlock = Math.max(1, Math.floor(BLOCK_BYTES / (4 * dim)));
    for (let row = 0; row < rows; row += rowsABlock) {
      const values = new Float32Array(Math.min(rowsABlock, rows - row) * dim);
      const bytes = Buffer.from(values.buffer);
      const read = await readFully(handle, bytes, start + 4 * row * dim);
      if (read < bytes.length)
        throw malformed(file, `ends in row ${row + Math.floor(read / (4 * dim))} of ${rows}`);
      yield { values, dim };
    }
  } finally {
    await handle.close();
  }
}

/** numpy.lib.format, of float32 rows; any version. */
async function npyHeader(
  file: string,
  handle: FileHandle,
): Promise<{ start: number; rows: number; dim: number }> {
  const head = Buffer.alloc(4096);
  const read = await readFully(handle, head, 0);
  const long = (head[6] as number) > 1;
  const start = long ? 12 + head.readUInt32LE(8) : 10 + head.readUInt16LE(8);
  const header = head.toString("latin1", 10, Math.min(start, read));
  const shape = /'shape': *\((\d+), *(\d+)\)/.exec(header);
  const plain = /'descr': *'<f4'/.test(header) && /'fortran_order': *False/.test(header);
  if (head.toString("latin1", 0, 6) !== "\x93NUMPY" || shape === null || !plain || Number(shape[2]) === 0) {
    throw malformed(file, "is no NumPy array of float32 rows");
  }
  return { start, rows: Number(shape[1]), dim: Number(shape[2]) };
}

async function readFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

async function* parquetBlocks(file: string): AsyncGenerator<VectorBlock> {
  const buffer = await asyncBufferFromFile(file).catch((cause: unknown) => {
    throw fileError(file, cause);
  });
  const damaged = (cause: unknown): never => {
    throw malformed(file, `cannot be read as Parquet: ${(cause as Error).message}`);
  };
  const metadata = await parquetMetadataAsync(buffer).catch(damaged);
  let rowStart = 0;
  for (const { num_rows } of metadata.row_groups) {
    const rowEnd = rowStart + Number(num_rows);
    const columns = ["embedding"];
    const rows = await parquetReadObjects({ file: buffer, metadata, columns, rowStart, rowEnd }).catch(
      damaged,
    );
    const first = rowStart;
    yield joined(
      rows.map(({ embedding }) => embedding),
      (i) => `${file}, row ${first + i}`,
    );
    rowStart = rowEnd;
  }
}

/** Rows of numbers as one block. @throws DATA_MALFORMED */
function joined(rows: unknown[], where: (i: number) => string): VectorBlock {
  const dim = (rows[0] as { length?: number } | undefined)?.length ?? 0;
  const values = new Float32Array(rows.length * dim);
  for (const [i, row] of rows.entries()) {
    if (!Array.isArray(row) || row.length !== dim || dim === 0 || !row.every(Number.isFinite)) {
      throw new PeftTrainError("DATA_MALFORMED", `${where(i)}: expected a vector of ${dim} numbers`);
    }
    values.set(row, i * dim);
  }
  return { values, dim };
}

function malformed(file: string, what: string): PeftTrainError {
  return new PeftTrainError("DATA_MALFORMED", `${file} ${what}`, {
    hint: "npx peft-train encode writes files that can be searched.",
  });
}
