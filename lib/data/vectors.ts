import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { AtomicFile } from "./atomic-file.js";
import { JsonlVectorWriter } from "./jsonl-vectors.js";
import { NpyWriter } from "./npy.js";
import { ParquetVectorWriter } from "./parquet-vectors.js";

/** Where the bytes of a file of vectors go. */
export interface VectorFile {
  readonly path: string;
  write(data: string | Uint8Array): Promise<void>;
  commit(options?: { overwriteStart?: Uint8Array }): Promise<void>;
  abort(): Promise<void>;
}

/** Takes vectors as they come and makes a file of them that appears whole or not at all. */
export interface VectorWriter extends AsyncDisposable {
  /** Rows so far. */
  readonly rows: number;
  /** Appends vectors that lie one after another. */
  write(vectors: Float32Array): Promise<void>;
  /** What a later writer needs beside the bytes of the file to go on from here, as JSON; undefined for nothing. */
  state(): unknown;
  /** Gives the file its name. */
  close(): Promise<void>;
  /** Leaves nothing behind; does nothing after `close`. */
  abort(): Promise<void>;
}

/** A writer that stopped after some rows, whose bytes are in the file. */
export interface StoppedWriter {
  rows: number;
  state: unknown;
}

export const VECTOR_EXTENSIONS = [".npy", ".jsonl", ".parquet"] as const;
export type VectorExtension = (typeof VECTOR_EXTENSIONS)[number];

/** What a name says of the format; undefined for a name of none. */
export function vectorExtension(file: string): VectorExtension | undefined {
  const extension = path.extname(file).toLowerCase();
  return VECTOR_EXTENSIONS.find((known) => known === extension);
}

/**
 * Opens a writer for `.npy`, `.jsonl` or `.parquet`.
 * @param file A name, for a file that appears whole or not at all, or an open file.
 * @param stopped Where the file holds rows already.
 * @throws USAGE for another extension, OUTPUT_UNWRITABLE.
 */
export async function openVectorWriter(
  file: string | VectorFile,
  dim: number,
  stopped?: StoppedWriter,
): Promise<VectorWriter> {
  const name = typeof file === "string" ? file : file.path;
  const extension = vectorExtension(name);
  if (extension === undefined) {
    throw new PeftTrainError(
      "USAGE",
      `expected an output that ends in ${orList(VECTOR_EXTENSIONS)}, got ${name}`,
    );
  }
  const open = typeof file === "string" ? await AtomicFile.create(file) : file;
  switch (extension) {
    case ".npy":
      return NpyWriter.over(open, dim, stopped);
    case ".jsonl":
      return new JsonlVectorWriter(open, dim, stopped);
    case ".parquet":
      return ParquetVectorWriter.over(open, dim, stopped);
  }
}

/** "a, b or c" */
export function orList(names: readonly string[]): string {
  return names.join(", ").replace(/, ([^,]*)$/, " or $1");
}
