import { type FileHandle, open } from "node:fs/promises";
import { fileError } from "../data/file-error.js";
import { type ErrorCode, PeftTrainError } from "../errors.js";
import { isObject, LFS_POINTER, lfsPointer } from "./json-file.js";

export interface TensorHeader {
  dtype: string;
  shape: number[];
  /** Bytes `[begin, end)` of the data after the header. */
  begin: number;
  end: number;
}

const BITS: Record<string, number> = {
  F64: 64,
  I64: 64,
  U64: 64,
  F32: 32,
  I32: 32,
  U32: 32,
  F16: 16,
  BF16: 16,
  I16: 16,
  U16: 16,
  I8: 8,
  U8: 8,
  BOOL: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
};
/** The format's own cap. */
const LARGEST_HEADER = 100_000_000;

/**
 * Reads and checks the header of a safetensors file (u64 length, JSON, then the data without holes): enough to tell
 * a truncated or foreign file before anything is loaded. The engine checks again, tensor by tensor.
 * @param corrupt Code of the error when the file is not as the format asks.
 */
export async function readSafetensorsHeader(
  file: string,
  corrupt: ErrorCode = "MODEL_CORRUPT",
): Promise<Map<string, TensorHeader>> {
  let bytes: Buffer;
  let fileSize: number;
  try {
    await using handle = await open(file);
    fileSize = (await handle.stat()).size;
    bytes = await readHeaderBytes(handle, fileSize, file, corrupt);
  } catch (cause) {
    throw cause instanceof PeftTrainError ? cause : fileError(file, cause);
  }
  const tensors = parseEntries(bytes, file, corrupt);
  checkLayout(tensors, fileSize - 8 - bytes.length, file, corrupt);
  return tensors;
}

async function readHeaderBytes(
  handle: FileHandle,
  fileSize: number,
  file: string,
  corrupt: ErrorCode,
): Promise<Buffer> {
  const start = Buffer.alloc(LFS_POINTER.length);
  const { bytesRead } = await handle.read(start, 0, start.length, 0);
  if (start.toString("latin1", 0, bytesRead) === LFS_POINTER) throw lfsPointer(file, corrupt);
  if (bytesRead < 8) throw invalid(file, `it has ${fileSize} bytes only`, corrupt);
  const length = start.readBigUInt64LE(0);
  if (length > LARGEST_HEADER) throw invalid(file, `its header would have ${length} bytes`, corrupt);
  if (8 + Number(length) > fileSize) {
    throw invalid(
      file,
      `its header has ${length} bytes, the whole file ${fileSize}: it is cut short`,
      corrupt,
    );
  }
  const bytes = Buffer.alloc(Number(length));
  await handle.read(bytes, 0, bytes.length, 8);
  return bytes;
}

function parseEntries(bytes: Buffer, file: string, corrupt: ErrorCode): Map<string, TensorHeader> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw invalid(file, `its header is not JSON (${(cause as Error).message})`, corrupt);
  }
  if (!isObject(json)) throw invalid(file, "its header is not a JSON object", corrupt);
  const tensors = new Map<string, TensorHeader>();
  for (const [key, value] of Object.entries(json)) {
    if (key === "__metadata__") continue;
    const offsets = isObject(value) ? value.data_offsets : undefined;
    if (!isObject(value) || !isSizes(value.shape) || !isSizes(offsets) || offsets.length !== 2) {
      throw invalid(file, `tensor "${key}" needs dtype, shape and data_offsets`, corrupt);
    }
    const bits = BITS[String(value.dtype)];
    if (bits === undefined)
      throw invalid(file, `tensor "${key}" has the unknown dtype ${value.dtype}`, corrupt);
    const [begin, end] = offsets as [number, number];
    const elements = value.shape.reduce((product, size) => product * size, 1);
    if ((elements * bits) / 8 !== end - begin) {
      throw invalid(file, `the shape of tensor "${key}" does not fill its ${end - begin} bytes`, corrupt);
    }
    tensors.set(key, { dtype: String(value.dtype), shape: value.shape, begin, end });
  }
  return tensors;
}

/** Tensors must lie side by side and fill the file, so that nothing is read twice and nothing hides in between. */
function checkLayout(
  tensors: Map<string, TensorHeader>,
  dataBytes: number,
  file: string,
  corrupt: ErrorCode,
): void {
  let position = 0;
  const inOrder = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  for (const [key, { begin, end }] of inOrder) {
    if (begin !== position) {
      throw invalid(file, `there is a hole or an overlap before tensor "${key}"`, corrupt);
    }
    position = end;
  }
  if (position !== dataBytes) {
    const what = position > dataBytes ? "it is cut short" : "something is appended to it";
    throw invalid(file, `its tensors take ${position} bytes, it holds ${dataBytes}: ${what}`, corrupt);
  }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function invalid(file: string, what: string, corrupt: ErrorCode): PeftTrainError {
  return new PeftTrainError(corrupt, `${file} is not a valid safetensors file: ${what}`, {
    hint: "Copy or download it again.",
  });
}
