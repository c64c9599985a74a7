import { type FileHandle, open } from "node:fs/promises";
import os from "node:os";
import { fileError } from "../data/file-error.js";
import { type ErrorCode, PeftTrainError } from "../errors.js";
import { fromBfloat16, fromFloat16 } from "./float16.js";
import { readSafetensorsHeader, type TensorHeader } from "./safetensors-header.js";

/** An open safetensors file, of which tensors are read one at a time. */
export class TensorFile implements AsyncDisposable {
  private constructor(
    readonly path: string,
    readonly tensors: ReadonlyMap<string, TensorHeader>,
    private readonly handle: FileHandle,
    private readonly dataStart: number,
  ) {}

  /**
   * @param corrupt Code of the error when the file is not as the format asks.
   * @throws FILE_NOT_FOUND, FILE_UNREADABLE, `corrupt`
   */
  static async open(file: string, corrupt: ErrorCode = "MODEL_CORRUPT"): Promise<TensorFile> {
    const tensors = await readSafetensorsHeader(file, corrupt);
    try {
      const handle = await open(file);
      const { size } = await handle.stat();
      const dataBytes = [...tensors.values()].reduce((end, tensor) => Math.max(end, tensor.end), 0);
      return new TensorFile(file, tensors, handle, size - dataBytes);
    } catch (cause) {
      throw fileError(file, cause);
    }
  }

  /** The bytes of a tensor as they are in the file. */
  async bytes(name: string): Promise<Buffer> {
    const { begin, end } = this.header(name);
    const bytes = Buffer.alloc(end - begin);
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await this.handle.read(
          bytes,
          done,
          Math.min(bytes.length - done, 1 << 30),
          this.dataStart + begin + done,
        );
        if (bytesRead === 0) throw new Error("the file has become shorter while it was read");
        done += bytesRead;
      }
    } catch (cause) {
      throw fileError(this.path, cause);
    }
    return bytes;
  }

  /** Numbers of a tensor of floats, row by row. @throws MODEL_UNSUPPORTED for another type. */
  async floats(name: string): Promise<Float32Array> {
    const { dtype } = this.header(name);
    const values = readFloats(dtype, await this.bytes(name));
    if (values !== undefined) return values;
    throw new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `${this.path}: tensor "${name}" is ${dtype}; expected F32, F16, BF16 or F64`,
    );
  }

  header(name: string): TensorHeader {
    const header = this.tensors.get(name);
    if (header !== undefined) return header;
    throw new PeftTrainError("MODEL_CORRUPT", `${this.path} has no tensor "${name}"`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.handle.close();
  }
}

/** Little-endian bytes as float32; undefined for a type that holds no floats. */
export function readFloats(dtype: string, bytes: Buffer): Float32Array | undefined {
  const width = ({ F64: 8, F32: 4, F16: 2, BF16: 2 } as Record<string, number>)[dtype];
  if (width === undefined) return undefined;
  if (dtype === "F32" && os.endianness() === "LE" && bytes.byteOffset % 4 === 0) {
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  }
  const out = new Float32Array(bytes.length / width);
  if (dtype === "F32") {
    for (let i = 0; i < out.length; i++) out[i] = bytes.readFloatLE(4 * i);
  } else if (dtype === "F64") {
    for (let i = 0; i < out.length; i++) out[i] = bytes.readDoubleLE(8 * i);
  } else {
    const read = dtype === "F16" ? fromFloat16 : fromBfloat16;
    for (let i = 0; i < out.length; i++) out[i] = read(bytes.readUInt16LE(2 * i));
  }
  return out;
}
