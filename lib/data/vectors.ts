import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { JsonlVectorWriter } from "./jsonl-vectors.js";
import { NpyWriter } from "./npy.js";

/** Takes vectors as they come and makes a file of them that appears whole or not at all. */
export interface VectorWriter extends AsyncDisposable {
  /** Appends vectors that lie one after another. */
  write(vectors: Float32Array): Promise<void>;
  /** Gives the file its name. */
  close(): Promise<void>;
  /** Leaves nothing behind; does nothing after `close`. */
  abort(): Promise<void>;
}

/** Opens a writer for `.npy` or `.jsonl`. @throws USAGE for another extension, OUTPUT_UNWRITABLE. */
export async function openVectorWriter(file: string, dim: number): Promise<VectorWriter> {
  const extension = path.extname(file).toLowerCase();
  if (extension === ".npy") return NpyWriter.open(file, dim);
  if (extension === ".jsonl") return JsonlVectorWriter.open(file, dim);
  throw new PeftTrainError("USAGE", `expected an output that ends in .npy or .jsonl, got ${file}`);
}
