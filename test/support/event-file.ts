import { readFileSync } from "node:fs";
import { maskedCrc32c } from "../../lib/tracking/crc32c.js";

export interface ScalarEvent {
  wallTime: number;
  step: number;
  values: Record<string, number>;
}

/** The scalars of a TensorBoard event file; throws where a checksum is wrong or a record is cut. */
export function readEvents(file: string): ScalarEvent[] {
  const content = readFileSync(file);
  const events: ScalarEvent[] = [];
  for (let at = 0; at < content.length; ) {
    const length = Number(content.readBigUInt64LE(at));
    const data = content.subarray(at + 12, at + 12 + length);
    if (content.readUInt32LE(at + 8) !== maskedCrc32c(content.subarray(at, at + 8)))
      throw new Error("length");
    if (content.readUInt32LE(at + 12 + length) !== maskedCrc32c(data)) throw new Error("data");
    at += 16 + length;
    const event: ScalarEvent = { wallTime: 0, step: 0, values: {} };
    for (const [field, value] of fields(data)) {
      if (field === 1) event.wallTime = (value as Buffer).readDoubleLE();
      if (field === 2) event.step = value as number;
      if (field === 5) for (const [, scalar] of fields(value as Buffer)) addScalar(event, scalar as Buffer);
    }
    if (Object.keys(event.values).length > 0) events.push(event);
  }
  return events;
}

function addScalar(event: ScalarEvent, message: Buffer): void {
  const [tag, value] = fields(message).map(([, content]) => content as Buffer);
  event.values[String(tag)] = (value as Buffer).readFloatLE();
}

function fields(message: Buffer): [field: number, value: Buffer | number][] {
  const found: [number, Buffer | number][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message.readUInt8(at++);
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    const type = key % 8;
    if (type === 0) {
      found.push([Math.floor(key / 8), varint()]);
      continue;
    }
    const length = type === 2 ? varint() : type === 1 ? 8 : 4;
    found.push([Math.floor(key / 8), message.subarray(at, at + length)]);
    at += length;
  }
  return found;
}
