import { readFileSync } from "node:fs";

/** Reads a float32 .npy file of format 1.0. */
export function readNpy(file: string): { shape: number[]; rows: Float32Array[] } {
  const bytes = readFileSync(file);
  if (bytes.toString("latin1", 0, 8) !== "\x93NUMPY\x01\x00") throw new Error(`${file} is no .npy file`);
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, start);
  if (!header.includes("'descr': '<f4'")) throw new Error(`${file} is not float32`);
  const shape = /'shape': \(([\d, ]+)\)/.exec(header)?.[1]?.split(", ").map(Number) ?? [];
  const [count = 0, width = 0] = shape;
  const values = new Float32Array(new Uint8Array(bytes.subarray(start)).buffer);
  if (values.length !== count * width)
    throw new Error(`${file} has ${values.length} numbers for shape ${shape}`);
  return {
    shape,
    rows: Array.from({ length: count }, (_, i) => values.subarray(i * width, (i + 1) * width)),
  };
}
