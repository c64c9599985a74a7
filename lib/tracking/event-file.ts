import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { outputError } from "../data/file-error.js";
import { maskedCrc32c } from "./crc32c.js";

/**
 * A TensorBoard event file: TensorFlow records (length, its checksum, data, its checksum) of `Event` messages. Of the
 * protocol buffers it takes four messages of a few fields each, which are written out here.
 */
export class EventFile implements Disposable {
  readonly path: string;
  private readonly descriptor: number;

  /** @throws OUTPUT_UNWRITABLE */
  constructor(folder: string, now: number = Date.now()) {
    const seconds = String(Math.floor(now / 1000)).padStart(10, "0");
    this.path = path.join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.0`);
    try {
      this.descriptor = openSync(this.path, "wx");
    } catch (cause) {
      throw outputError(this.path, cause);
    }
    this.write(encodeVersion(now));
  }

  /** Adds scalars by their tags; TensorBoard, which may be looking on, sees them at once. */
  scalars(step: number, values: ReadonlyMap<string, number>, now: number = Date.now()): void {
    if (values.size > 0) this.write(encodeScalars(now, step, values));
  }

  [Symbol.dispose](): void {
    try {
      fsyncSync(this.descriptor);
    } finally {
      closeSync(this.descriptor);
    }
  }

  private write(event: Uint8Array): void {
    try {
      writeSync(this.descriptor, record(event));
    } catch (cause) {
      throw outputError(this.path, cause);
    }
  }
}

export function record(data: Uint8Array): Uint8Array {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  return Buffer.concat([length, uint32(maskedCrc32c(length)), data, uint32(maskedCrc32c(data))]);
}

/** Event { wall_time: 1, file_version: 3 } */
export function encodeVersion(now: number): Uint8Array {
  return Buffer.concat([double(1, now / 1000), bytes(3, Buffer.from("brain.Event:2"))]);
}

/** Event { wall_time: 1, step: 2, summary: 5 { value: 1 { tag: 1, simple_value: 2 } } } */
export function encodeScalars(now: number, step: number, values: ReadonlyMap<string, number>): Uint8Array {
  const summary = [...values].map(([tag, value]) =>
    bytes(1, Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value)])),
  );
  // Protocol buffers leave out a zero.
  const at = step === 0 ? [] : [Buffer.concat([key(2, 0), varint(step)])];
  return Buffer.concat([double(1, now / 1000), ...at, bytes(5, Buffer.concat(summary))]);
}

/** Number of a field and the wire type of what follows: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. */
function key(field: number, wireType: number): Buffer {
  return varint(field * 8 + wireType);
}

function varint(value: number): Buffer {
  const out: number[] = [];
  let left = value;
  for (; left >= 128; left = Math.floor(left / 128)) out.push((left % 128) + 128);
  return Buffer.from([...out, left]);
}

function bytes(field: number, content: Uint8Array): Buffer {
  return Buffer.concat([key(field, 2), varint(content.length), content]);
}

function double(field: number, value: number): Buffer {
  const content = Buffer.alloc(8);
  content.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), content]);
}

function float(field: number, value: number): Buffer {
  const content = Buffer.alloc(4);
  content.writeFloatLE(value);
  return Buffer.concat([key(field, 5), content]);
}

function uint32(value: number): Buffer {
  const content = Buffer.alloc(4);
  content.writeUInt32LE(value);
  return content;
}
