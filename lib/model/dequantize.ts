import { PeftTrainError } from "../errors.js";
import { isObject } from "./json-file.js";
import { readFloats, type TensorFile } from "./tensor-file.js";

/** Tensors that say how another one is quantised. */
const STATE =
  /\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|outlier_index|outlier_value|quant_state\..+)$|\.(SCB|weight_format)$/;
/** Absmax values that one nested absmax covers. */
const NESTED_BLOCK = 256;

/** Codes of 4 bits as bitsandbytes holds them, the first of a byte in its high half; all floats float32. */
export interface BlockwiseCodes {
  elements: number;
  blockSize: number;
  codes: Uint8Array;
  codeBook: Float32Array;
  absmax: Float32Array;
}

export function isQuantState(key: string): boolean {
  return STATE.test(key);
}

/** code book[code] * absmax, to the bit of bitsandbytes' CPU code. */
export function dequantizeBlockwise({
  elements,
  blockSize,
  codes,
  codeBook,
  absmax,
}: BlockwiseCodes): Float32Array {
  const out = new Float32Array(elements);
  for (let i = 0; i < elements; i++) {
    const byte = codes[i >> 1] as number;
    const code = i % 2 === 0 ? byte >> 4 : byte & 15;
    out[i] = (codeBook[code] as number) * (absmax[Math.floor(i / blockSize)] as number);
  }
  return out;
}

/** Scales that are held in 8 bits: code book[code] * nested absmax + offset, each step in float32. */
export function expandAbsmax(
  codes: Uint8Array,
  codeBook: Float32Array,
  nested: Float32Array,
  offset: number,
): Float32Array {
  return Float32Array.from(codes, (code, i) => {
    const scaled = (codeBook[code] as number) * (nested[Math.floor(i / NESTED_BLOCK)] as number);
    return Math.fround(scaled) + Math.fround(offset);
  });
}

/** Where a matrix is held in codes: its shape before that, and how to get its numbers back. */
export interface QuantizedTensor {
  shape: number[];
  floats: () => Promise<Float32Array>;
}

/**
 * The matrix `<module>.weight` of a quantised file; undefined where it is held in plain numbers.
 * @throws QUANT_STATE for a state that does not fit its tensors.
 */
export async function quantizedTensor(file: TensorFile, key: string): Promise<QuantizedTensor | undefined> {
  const module = key.replace(/\.weight$/, "");
  if (file.tensors.has(`${module}.SCB`)) {
    return { shape: file.header(key).shape, floats: () => readRows(file, module) };
  }
  const state = [...file.tensors.keys()].find((name) => name.startsWith(`${key}.quant_state.bitsandbytes__`));
  if (state === undefined) return undefined;
  const { shape, blockSize, offset } = await readState(file, state);
  return { shape, floats: () => readBlockwise(file, key, { shape, blockSize, offset }) };
}

interface State {
  shape: number[];
  blockSize: number;
  /** Of scales in 8 bits. */
  offset: number | undefined;
}

async function readState(file: TensorFile, key: string): Promise<State> {
  let json: unknown;
  try {
    json = JSON.parse((await file.bytes(key)).toString("utf8"));
  } catch {
    json = undefined;
  }
  const { shape, blocksize, nested_offset: offset } = isObject(json) ? json : {};
  const isShape = Array.isArray(shape) && shape.length === 2 && shape.every(Number.isSafeInteger);
  const isOffset = offset === undefined || typeof offset === "number";
  if (isShape && Number.isInteger(blocksize) && isOffset) {
    return { shape, blockSize: blocksize as number, offset };
  }
  throw disagrees(file, key, "is not a quantisation state of bitsandbytes");
}

async function readBlockwise(
  file: TensorFile,
  key: string,
  { shape, blockSize, offset }: State,
): Promise<Float32Array> {
  const elements = shape.reduce((product, size) => product * size, 1);
  const blocks = Math.ceil(elements / blockSize);
  const codes = await sized(file, key, Math.ceil(elements / 2));
  const absmax =
    offset === undefined
      ? await floats(file, `${key}.absmax`, blocks)
      : expandAbsmax(
          await sized(file, `${key}.absmax`, blocks),
          await floats(file, `${key}.nested_quant_map`, 256),
          await floats(file, `${key}.nested_absmax`, Math.ceil(blocks / NESTED_BLOCK)),
          offset,
        );
  const codeBook = await floats(file, `${key}.quant_map`, 16);
  const out = dequantizeBlockwise({ elements, blockSize, codes, codeBook, absmax });
  if (!file.tensors.has(`${key}.outlier_index`)) return out;
  const index = await file.bytes(`${key}.outlier_index`);
  const values = await floats(file, `${key}.outlier_value`, index.length / 4);
  for (const [i, value] of values.entries()) {
    const at = index.readInt32LE(4 * i);
    if (at < 0 || at >= elements) throw disagrees(file, `${key}.outlier_index`, "points out of its matrix");
    out[at] = value;
  }
  return out;
}

/** LLM.int8(): a scale a row. */
async function readRows(file: TensorFile, module: string): Promise<Float32Array> {
  const { shape } = file.header(`${module}.weight`);
  const [rows = 0, columns = 0] = shape;
  const codes = new Int8Array(await sized(file, `${module}.weight`, rows * columns));
  const scales = await floats(file, `${module}.SCB`, rows);
  const out = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const scale = Math.fround((scales[row] as number) / 127);
    for (let i = row * columns; i < (row + 1) * columns; i++) out[i] = (codes[i] as number) * scale;
  }
  return out;
}

async function sized(file: TensorFile, key: string, bytes: number): Promise<Uint8Array> {
  const content = await file.bytes(key);
  if (content.length === bytes) return content;
  throw disagrees(file, key, `has ${content.length} bytes, its state asks for ${bytes}`);
}

async function floats(file: TensorFile, key: string, count: number): Promise<Float32Array> {
  const values = readFloats(file.header(key).dtype, await file.bytes(key));
  if (values?.length === count) return values;
  throw disagrees(file, key, `holds ${values?.length ?? "no"} floats, its state asks for ${count}`);
}

function disagrees(file: TensorFile, key: string, what: string): PeftTrainError {
  return new PeftTrainError("QUANT_STATE", `${file.path}: "${key}" ${what}`, {
    hint: "Copy the file from its origin again, or quantise the model again.",
  });
}
