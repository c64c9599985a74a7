import { type FileHandle, open } from "node:fs/promises";
import os from "node:os";
import { outputError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import { toBfloat16, toFloat16 } from "./float16.js";

export type FloatType = "float32" | "float16" | "bfloat16";

const DTYPES: Record<FloatType, string> = { float32: "F32", float16: "F16", bfloat16: "BF16" };

/** A tensor to be written. */
export interface TensorSource {
  name: string;
  /** As safetensors calls it: F32, I64. */
  dtype: string;
  shape: readonly number[];
  bytes: number;
  /** Its bytes, little-endian; asked for once, when its turn has come. */
  read: () => Promise<Uint8Array>;
}

/** A tensor of float32 numbers that is held as `type`. */
export function floatTensor(
  name: string,
  shape: readonly number[],
  type: FloatType,
  read: () => Promise<Float32Array>,
): TensorSource {
  const elements = shape.reduce((product, size) => product * size, 1);
  return {
    name,
    shape,
    dtype: DTYPES[type],
    bytes: elements * (type === "float32" ? 4 : 2),
    read: async () => floatBytes(await read(), type),
  };
}

/** From where on a number rounds to infinity: half a unit beyond the largest. */
const INFINITE_FROM: Record<FloatType, number> = {
  float32: Number.POSITIVE_INFINITY,
  float16: 65_520,
  bfloat16: 2 ** 128 - 2 ** 119,
};

/**
 * @param of What has the tensor, for the message.
 * @throws NOT_FINITE
 */
export function requireFinite(name: string, values: Float32Array, type: FloatType, of: string): void {
  const limit = INFINITE_FROM[type];
  if (values.every((value) => Math.abs(value) < limit)) return;
  throw new PeftTrainError("NOT_FINITE", `"${name}" of ${of} would hold NaN or infinity in ${type}`, {
    hint:
      type === "float16"
        ? "Take float32 or bfloat16."
        : "The weights, or what the adapter adds to them, are too large or broken.",
  });
}

/** float32 numbers as little-endian bytes of a type. */
export function floatBytes(values: Float32Array, type: FloatType): Buffer {
  if (type === "float32") {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    return os.endianness() === "LE" ? bytes : Buffer.from(bytes).swap32();
  }
  const convert = type === "float16" ? toFloat16 : toBfloat16;
  const bytes = Buffer.alloc(2 * values.length);
  for (let i = 0; i < values.length; i++) bytes.writeUInt16LE(convert(values[i] as number), 2 * i);
  return bytes;
}

/**
 * Writes a safetensors file, one tensor in memory at a time, and waits until it is on the disk. Metadata is what Python's
 * libraries ask for, `{"format": "pt"}`; the header is padded to eight bytes, as theirs.
 * @throws OUTPUT_UNWRITABLE, and what reading a tensor throws.
 */
export async function writeSafetensors(file: string, tensors: readonly TensorSource[]): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let position = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [position, position + bytes] };
    position += bytes;
  }
  const text = JSON.stringify(header);
  const json = Buffer.from(text + " ".repeat((8 - (Buffer.byteLength(text) % 8)) % 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const start = Buffer.concat([length, json]);
  await writePieces(file, [{ bytes: start.length, read: async () => start }, ...tensors]);
}

/** Part of a file, read when its turn has come. */
export type Piece = Pick<TensorSource, "bytes" | "read">;

/**
 * Writes a file of pieces, one in memory at a time, and waits until it is on the disk.
 * @throws OUTPUT_UNWRITABLE, and what reading a piece throws.
 */
export async function writePieces(file: string, pieces: readonly Piece[]): Promise<void> {
  const handle = await open(file, "w").catch((cause) => {
    throw outputError(file, cause);
  });
  await using _ = handle;
  for (const { bytes, read } of pieces) {
    const content = await read();
    if (content.length !== bytes) throw new Error(`${file}: ${content.length} bytes, expected ${bytes}`);
    await append(handle, content, file);
  }
  await handle.sync().catch((cause) => {
    throw outputError(file, cause);
  });
}

async function append(handle: FileHandle, bytes: Uint8Array, file: string): Promise<void> {
  try {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, 1 << 30));
      done += bytesWritten;
    }
  } catch (cause) {
    throw outputError(file, cause);
  }
}
