import { readFile } from "node:fs/promises";
import { PeftTrainError } from "../errors.js";
import { fileError } from "./file-error.js";

/** The rows of a two-dimensional array, one after another. */
export interface Vectors {
  path: string;
  rows: number;
  columns: number;
  values: Float32Array;
}

/**
 * Reads a NumPy array of float32 or float64 rows (numpy.lib.format, any version).
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, or DATA_MALFORMED for another array and for numbers that are not finite.
 */
export async function readNpy(file: string): Promise<Vectors> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw fileError(file, cause);
  });
  if (bytes.length < 12 || bytes.toString("latin1", 0, 6) !== "\x93NUMPY") {
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${file} is no NumPy array: it does not begin as .npy files do`,
    );
  }
  const long = (bytes[6] as number) > 1;
  const start = long ? 12 + bytes.readUInt32LE(8) : 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", long ? 12 : 10, start);
  const type = /'descr': *'<(f4|f8)'/.exec(header)?.[1];
  const shape = /'shape': *\((\d+), *(\d+)\)/.exec(header);
  if (type === undefined || shape === null || !/'fortran_order': *False/.test(header)) {
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${file}: expected rows of float32 or float64, found an array of ${header.trim()}`,
      { hint: "numpy.save(name, numpy.ascontiguousarray(vectors, dtype=numpy.float32)) writes one." },
    );
  }
  const [rows, columns] = [Number(shape[1]), Number(shape[2])];
  const data = bytes.subarray(start);
  const size = type === "f4" ? 4 : 8;
  if (data.length !== rows * columns * size) {
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${file}: expected ${rows * columns * size} bytes of data for ${rows} by ${columns}, found ${data.length}`,
    );
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const values = Float32Array.from({ length: rows * columns }, (_, i) =>
    size === 4 ? view.getFloat32(4 * i, true) : view.getFloat64(8 * i, true),
  );
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) {
    throw new PeftTrainError("DATA_MALFORMED", `${file}: row ${Math.floor(at / columns)} is not finite`);
  }
  return { path: file, rows, columns, values };
}
