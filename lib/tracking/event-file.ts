import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { outputError } from "../data/file-error.js";
import { maskedCrc32c } from "./crc32c.js";
import { bytes, double, float, int } from "./protobuf.js";

/**
 * A TensorBoard event file: TensorFlow records (length, its checksum, data, its checksum) of `Event` messages. Of the
 * protocol buffers it takes three messages of a few fields each, which are written out here.
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
  return Buffer.concat([double(1, now / 1000), int(2, step), bytes(5, Buffer.concat(summary))]);
}

function uint32(value: number): Buffer {
  const content = Buffer.alloc(4);
  content.writeUInt32LE(value);
  return content;
}
