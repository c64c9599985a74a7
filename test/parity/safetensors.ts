import { readFileSync, writeFileSync } from "node:fs";

/** Tensors of a safetensors file by name; float32 and int32 are all the golden files hold. */
export interface TensorFile {
  metadata: Record<string, string>;
  shapes: Record<string, number[]>;
  floats: Record<string, Float32Array>;
  ints: Record<string, Int32Array>;
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** A reader of the tests' own: what the engine writes is not to be judged by the engine's reader. */
export function readTensors(path: string): TensorFile {
  const bytes = readFileSync(path);
  const headerLength = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength)) as Record<string, Entry>;
  const { __metadata__: metadata, ...entries } = header;
  const file: TensorFile = {
    metadata: (metadata ?? {}) as unknown as Record<string, string>,
    shapes: {},
    floats: {},
    ints: {},
  };
  let end = 0;
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(entries)) {
    const data = bytes.subarray(8 + headerLength + data_offsets[0], 8 + headerLength + data_offsets[1]);
    const count = shape.reduce((product, size) => product * size, 1);
    if (data.byteLength !== 4 * count) throw new Error(`${path}: ${name} has ${data.byteLength} bytes`);
    const copy = new Uint8Array(data).buffer;
    file.shapes[name] = shape;
    if (dtype === "F32") file.floats[name] = new Float32Array(copy);
    else if (dtype === "I32") file.ints[name] = new Int32Array(copy);
    else throw new Error(`${path}: ${name} is ${dtype}`);
    end = Math.max(end, data_offsets[1]);
  }
  if (8 + headerLength + end !== bytes.byteLength) throw new Error(`${path}: bytes after the last tensor`);
  return file;
}

export function writeTensors(
  path: string,
  tensors: Record<string, Float32Array>,
  shapes: Record<string, number[]>,
): void {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const [name, data] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape: shapes[name], data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  const parts = Object.values(tensors).map((t) => Buffer.from(t.buffer, t.byteOffset, t.byteLength));
  writeFileSync(path, Buffer.concat([length, json, ...parts]));
}
