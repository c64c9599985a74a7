import { isUtf8 } from "node:buffer";
import { PeftTrainError } from "../errors.js";
import { readBytes } from "./byte-stream.js";

const NEWLINE = 0x0a;

/**
 * The text of a UTF-8 file in pieces of some 256 KB, without its byte order mark; unpacked where it is gzip.
 * @param onBytes Sees every byte of the file once, in order, before it is unpacked and decoded.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, or DATA_MALFORMED naming the offset of the first byte that is not UTF-8.
 */
export async function* readUtf8(file: string, onBytes?: (bytes: Uint8Array) => void): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  let offset = 0;
  let line = 1;
  for await (const chunk of readBytes(file, onBytes)) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const complete = completeLength(bytes);
    const start = offset === 0 ? markLength(file, bytes) : 0;
    if (start === undefined || complete < start) {
      rest = bytes;
      continue;
    }
    const valid = bytes.subarray(0, complete);
    if (!isUtf8(valid)) throw notUtf8(file, valid, offset, line);
    yield valid.toString("utf8", start);
    rest = bytes.subarray(complete);
    offset += complete;
    line += countNewlines(valid, valid.length);
  }
  if (rest.length > 0) throw notUtf8(file, rest, offset, line);
}

/** Bytes up to the last whole character; what follows is the beginning of one, or not UTF-8 at all. */
function completeLength(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if ((byte & 0xc0) === 0x80) continue;
    const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needed > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}

/** Length of the UTF-8 byte order mark; undefined while there are too few bytes to tell. */
function markLength(file: string, bytes: Buffer): number | undefined {
  const mark = bytes.subarray(0, 2).toString("hex");
  if (mark === "fffe" || mark === "feff") {
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `expected UTF-8 in ${file}, found the byte order mark of UTF-16 at byte offset 0`,
      { hint: `Convert it: iconv -f UTF-16 -t UTF-8 ${JSON.stringify(file)} > utf8.csv` },
    );
  }
  const isPrefix = Buffer.from([0xef, 0xbb, 0xbf]).subarray(0, bytes.length).equals(bytes.subarray(0, 3));
  if (!isPrefix) return 0;
  return bytes.length < 3 ? undefined : 3;
}

function notUtf8(file: string, bytes: Buffer, offset: number, line: number): PeftTrainError {
  const at = firstInvalid(bytes);
  const byte = (bytes[at] as number).toString(16).toUpperCase().padStart(2, "0");
  return new PeftTrainError(
    "DATA_MALFORMED",
    `expected UTF-8 in ${file}, found byte 0x${byte} at byte offset ${offset + at} (line ${line + countNewlines(bytes, at)})`,
    {
      hint: `If the file is in another encoding, convert it: iconv -f WINDOWS-1252 -t UTF-8 ${JSON.stringify(file)} > utf8.csv`,
    },
  );
}

/** Index of the first byte that no UTF-8 text has there (Unicode, table 3-7). */
function firstInvalid(bytes: Buffer): number {
  let i = 0;
  while (i < bytes.length) {
    const lead = bytes[i] as number;
    const length =
      lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length === 0 || i + length > bytes.length) return i;
    if (length > 1) {
      const second = bytes[i + 1] as number;
      const lowest = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
      const highest = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
      if (second < lowest || second > highest) return i;
    }
    for (let j = 2; j < length; j++) if (((bytes[i + j] as number) & 0xc0) !== 0x80) return i;
    i += length;
  }
  return bytes.length - 1;
}

function countNewlines(bytes: Buffer, end: number): number {
  let count = 0;
  for (let i = bytes.indexOf(NEWLINE); i !== -1 && i < end; i = bytes.indexOf(NEWLINE, i + 1)) count++;
  return count;
}
