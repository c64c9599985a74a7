import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import yauzl from "yauzl";
import { PeftTrainError } from "../errors.js";

export interface UnpackOptions {
  /** Which files, by their path in the wheel. */
  keep: (path: string) => boolean;
  onBytes: (written: number) => void;
  signal: AbortSignal;
}

const RECORD = /^[^/]+\.dist-info\/RECORD$/;
/** Of RECORD, which lists every file of a wheel: path, SHA-256 in base64url without padding, size. */
const RECORD_LINE = /^"?(.+?)"?,sha256=([\w-]+),\d+$/;

/**
 * Unpacks files of a wheel into `target`, each checked against the wheel's own list of hashes.
 * @throws DOWNLOAD_FAILED for a file that is no whole wheel; system errors of writing as they are
 */
export async function unpackWheel(wheel: string, target: string, options: UnpackOptions): Promise<void> {
  const zip = await open(wheel);
  try {
    const hashes = new Map<string, string>();
    const written: { path: string; digest: string }[] = [];
    let bytes = 0;
    for await (const entry of zip.eachEntry()) {
      options.signal.throwIfAborted();
      const path = entry.fileName;
      if (path.endsWith("/")) continue;
      const isRecord = RECORD.test(path);
      if (!isRecord && !options.keep(path)) continue;
      const content: Readable = await zip
        .openReadStreamPromise(entry)
        .catch((error) => damaged(wheel, error));
      if (isRecord) {
        for (const line of (await text(content)).split(/\r?\n/)) {
          const [, name, hash] = RECORD_LINE.exec(line) ?? [];
          if (name !== undefined && hash !== undefined) hashes.set(name, hash);
        }
        continue;
      }
      const hash = createHash("sha256");
      const counted = async function* (pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
        for await (const piece of pieces) {
          hash.update(piece);
          bytes += piece.length;
          options.onBytes(bytes);
          yield piece;
        }
      };
      const file = join(target, path); // yauzl lets no path out of the folder
      await mkdir(dirname(file), { recursive: true });
      await pipeline(content, counted, createWriteStream(file), { signal: options.signal });
      written.push({ path, digest: hash.digest("base64url") });
    }
    const wrong = written.find(({ path, digest }) => hashes.get(path) !== digest);
    if (wrong !== undefined) damaged(wheel, new Error(`${wrong.path} is not what its RECORD says`));
  } catch (error) {
    if (error instanceof PeftTrainError || options.signal.aborted) throw error;
    if ((error as NodeJS.ErrnoException).code?.startsWith("E")) throw error;
    damaged(wheel, error);
  } finally {
    zip.close();
  }
}

async function open(wheel: string): Promise<yauzl.ZipFile> {
  try {
    return await yauzl.openPromise(wheel, { lazyEntries: true, autoClose: false });
  } catch (error) {
    return damaged(wheel, error);
  }
}

async function text(content: Readable): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of content) pieces.push(piece);
  return Buffer.concat(pieces).toString("utf8");
}

function damaged(wheel: string, cause: unknown): never {
  throw new PeftTrainError(
    "DOWNLOAD_FAILED",
    `${basename(wheel)} is no whole wheel: ${(cause as Error).message}`,
    {
      cause,
      hint: "Fetch it again.",
    },
  );
}
