import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { PeftTrainError } from "../errors.js";
import { fileError } from "./file-error.js";

const CHUNK_BYTES = 256 * 1024;
const GZIP_MAGIC = 0x1f8b;

/** The name that a file has without a .gz, whose extension says how it is read. */
export function unpackedName(file: string): string {
  return file.replace(/\.gz$/i, "");
}

/**
 * The bytes of a file, unpacked where it begins as gzip does, whatever it is called.
 * @param onBytes Sees every byte of the file itself once, in order.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, or DATA_MALFORMED where gzip data is damaged or cut off.
 */
export async function* readBytes(
  file: string,
  onBytes?: (bytes: Uint8Array) => void,
): AsyncGenerator<Buffer> {
  const chunks = rawBytes(file, onBytes);
  let head: Buffer = Buffer.alloc(0);
  while (head.length < 2) {
    const next = await chunks.next();
    if (next.done) break;
    head = Buffer.concat([head, next.value]);
  }
  if (head.length < 2 || head.readUInt16BE(0) !== GZIP_MAGIC) {
    if (head.length > 0) yield head;
    yield* chunks;
    return;
  }
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  // Its failure ends the loop below, which tells of it.
  pipeline(Readable.from(joined(head, chunks)), gunzip).catch(() => {});
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) yield chunk;
  } catch (cause) {
    if (cause instanceof PeftTrainError) throw cause;
    throw new PeftTrainError("DATA_MALFORMED", `${file} is damaged gzip data: ${(cause as Error).message}`, {
      hint: `Copy it again from its origin; gzip --test ${JSON.stringify(file)} says more.`,
      cause,
    });
  }
}

async function* rawBytes(file: string, onBytes?: (bytes: Uint8Array) => void): AsyncGenerator<Buffer> {
  const stream = createReadStream(file, { highWaterMark: CHUNK_BYTES });
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      onBytes?.(chunk);
      yield chunk;
    }
  } catch (cause) {
    throw cause instanceof PeftTrainError ? cause : fileError(file, cause);
  }
}

async function* joined(first: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield first;
  yield* rest;
}
