import os from "node:os";
import { PeftTrainError } from "../errors.js";
import { AtomicFile } from "./atomic-file.js";
import type { StoppedWriter, VectorFile, VectorWriter } from "./vectors.js";

/** Room for the longest shape, so that the header can be written again once the number of rows is known. */
const HEADER_BYTES = 128;

/**
 * Writes vectors as a NumPy array, float32 little-endian [rows, dim], in format version 1.0 (numpy.lib.format).
 * The file appears under its name when `close` returns, and not at all after `abort`.
 */
export class NpyWriter implements VectorWriter {
  private constructor(
    private readonly file: VectorFile,
    private readonly dim: number,
    public rows: number,
  ) {}

  /** @throws OUTPUT_UNWRITABLE */
  static async open(path: string, dim: number): Promise<NpyWriter> {
    return NpyWriter.over(await AtomicFile.create(path), dim);
  }

  /** Into an open file. */
  static async over(file: VectorFile, dim: number, stopped?: StoppedWriter): Promise<NpyWriter> {
    if (stopped === undefined) await file.write(header(0, dim));
    return new NpyWriter(file, dim, stopped?.rows ?? 0);
  }

  state(): undefined {}

  async write(vectors: Float32Array): Promise<void> {
    this.rows += rowCount(vectors, this.dim);
    // A copy: the caller may fill its array again before the bytes are written.
    const bytes = Buffer.from(new Uint8Array(vectors.buffer, vectors.byteOffset, vectors.byteLength));
    await this.file.write(os.endianness() === "LE" ? bytes : bytes.swap32());
  }

  async close(): Promise<void> {
    await this.file.commit({ overwriteStart: header(this.rows, this.dim) });
  }

  abort(): Promise<void> {
    return this.file.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.abort();
  }
}

/** Writes `rows` vectors that lie one after another in `vectors`. */
export async function writeNpy(path: string, vectors: Float32Array, dim: number): Promise<void> {
  await using writer = await NpyWriter.open(path, dim);
  await writer.write(vectors);
  await writer.close();
}

/** Number of vectors in a flat array. @throws INTERNAL when they do not fill it. */
export function rowCount(vectors: Float32Array, dim: number): number {
  const rows = vectors.length / dim;
  if (!Number.isInteger(rows)) {
    throw new PeftTrainError("INTERNAL", `${vectors.length} numbers are no vectors of ${dim}`);
  }
  return rows;
}

function header(rows: number, dim: number): Buffer {
  const description = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${dim}), }`;
  const bytes = Buffer.alloc(HEADER_BYTES, " ");
  bytes.write("\x93NUMPY\x01\x00", 0, "latin1");
  bytes.writeUInt16LE(HEADER_BYTES - 10, 8);
  bytes.write(description, 10, "latin1");
  bytes[HEADER_BYTES - 1] = 0x0a;
  return bytes;
}
