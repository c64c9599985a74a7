import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import yauzl from "yauzl";
import { PeftTrainError } from "../errors.js";

export interface UnpackOptions {
  /** Which files, by their path in the wheel. */
  keep: (path: string) => boolean;
  onBytes: (written: number) => void;
  signal: AbortSignal;
}

/** Headers are some ten thousand files of a few kilobytes: a stream for each would take most of the time. */
const SMALL_BYTES = 1 << 20;
const RECORD = /^[^/]+\.dist-info\/RECORD$/;
/** Of RECORD, which lists every file of a wheel: path, SHA-256 in base64url without padding, size. */
const RECORD_LINE = /^"?(.+?)"?,sha256=([\w-]+),\d+$/;

/**
 * Unpacks files of a wheel into `target`, each checked against the wheel's own list of hashes.
 * @throws DOWNLOAD_FAILED for a file that is no whole wheel; system errors of writing as they are
 */
export async function unpackWheel(wheel: string, target: string, options: UnpackOptions): Promise<void> {
  const zip = await openWheel(wheel);
  try {
    const hashes = new Map<string, string>();
    const folders = new Set<string>();
    const written: { path: string; digest: string }[] = [];
    let bytes = 0;
    for await (const entry of zip.eachEntry()) {
      options.signal.throwIfAborted();
      const path = entry.fileName;
      if (path.endsWith("/")) continue;
      const isRecord = RECORD.test(path);
      if (!isRecord && !options.keep(path)) continue;
      // It flows from here on: whoever opens it reads at once, or an error would find nobody to take it and end the process.
      const open = (): Promise<Readable> =>
        zip.openReadStreamPromise(entry).catch((error) => damaged(wheel, error));
      if (isRecord) {
        for (const line of (await buffer(await open())).toString("utf8").split(/\r?\n/)) {
          const [, name, hash] = RECORD_LINE.exec(line) ?? [];
          if (name !== undefined && hash !== undefined) hashes.set(name, hash);
        }
        continue;
      }
      const file = join(target, path); // yauzl lets no path out of the folder
      const folder = dirname(file);
      if (!folders.has(folder)) await mkdir(folder, { recursive: true });
      folders.add(folder);
      const hash = createHash("sha256");
      const count = (piece: Buffer): void => {
        hash.update(piece);
        bytes += piece.length;
        options.onBytes(bytes);
      };
      if (entry.uncompressedSize <= SMALL_BYTES) {
        const whole = await buffer(await open());
        count(whole);
        await writeFile(file, whole);
      } else {
        const counted = async function* (pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
          for await (const piece of pieces) {
            count(piece);
            yield piece;
          }
        };
        await pipeline(await open(), counted, createWriteStream(file), { signal: options.signal });
      }
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

async function openWheel(wheel: string): Promise<yauzl.ZipFile> {
  try {
    return await yauzl.openPromise(wheel, { lazyEntries: true, autoClose: false });
  } catch (error) {
    return damaged(wheel, error);
  }
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
