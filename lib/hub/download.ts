import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { withLock } from "../setup/lock.js";
import type { HubAccess } from "./access.js";
import { cacheError, type RepositoryCache } from "./cache.js";
import { stopped, unreachable } from "./errors.js";
import { hubFetch } from "./request.js";

/** A file of a commit, as the Hub lists it. */
export interface RemoteFile {
  name: string;
  url: string;
  size: number;
  /** SHA-256 of the content, or Git's hash of it for a small file: also its name among the blobs. */
  etag: string;
  isLfs: boolean;
}

/** Connections in a row that bring nothing new. */
const IDLE_TRIES = 5;
/** Whole downloads whose hash is wrong. */
const WRONG_TRIES = 2;

/**
 * Brings a file among the blobs of the cache, unless it is there: goes on with a part that an earlier try has left, and
 * keeps nothing whose size or hash is not what the Hub says.
 */
export async function downloadBlob(
  cache: RepositoryCache,
  file: RemoteFile,
  access: HubAccess,
  onBytes: (here: number) => void,
): Promise<void> {
  const blob = cache.blob(file.etag);
  const isHere = async (): Promise<boolean> => (await stat(blob).catch(() => undefined))?.size === file.size;
  if (await isHere()) return;
  const signal = access.signal ?? new AbortController().signal;
  const waits = (): void => access.onNote?.(`another process downloads ${file.name}; waiting`);
  try {
    await withLock(await cache.lock(file.etag), signal, waits, async () => {
      if (await isHere()) return;
      const partial = `${blob}.peft-train.incomplete`;
      await checkSpace(partial, file);
      for (let tried = 1; ; tried++) {
        await fill(partial, file, access, onBytes);
        const found = await contentHash(partial, file);
        if (found === file.etag) break;
        await rm(partial, { force: true });
        if (tried < WRONG_TRIES) continue;
        const kind = file.isLfs ? "SHA-256" : "Git hash";
        throw new PeftTrainError(
          "DOWNLOAD_FAILED",
          `${file.name} arrived with ${kind} ${found}; the Hub says ${file.etag}`,
          { hint: "Something between here and the Hub changes files, or the Hub's storage is at fault." },
        );
      }
      await rename(partial, blob).catch((cause) => {
        throw cacheError(blob, cause);
      });
    });
  } catch (error) {
    if (signal.aborted) throw stopped(`downloading ${file.name}`);
    throw error;
  }
}

/** Downloads until the partial file has its size, over as many connections as it takes. */
async function fill(
  partial: string,
  file: RemoteFile,
  access: HubAccess,
  onBytes: (here: number) => void,
): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(partial, "a");
  } catch (cause) {
    throw cacheError(partial, cause);
  }
  try {
    let idle = 0;
    for (;;) {
      let here = (await handle.stat()).size;
      if (here > file.size) {
        await handle.truncate(0);
        here = 0;
      }
      onBytes(here);
      if (here === file.size) break;
      const before = here;
      try {
        here = await receive(handle, here, file, access, onBytes);
        if (here === file.size) break;
        throw new Error(`it ends after ${here} of ${file.size} bytes`);
      } catch (error) {
        if (error instanceof PeftTrainError || access.signal?.aborted) throw error;
        idle = (await handle.stat()).size > before ? 0 : idle + 1;
        if (idle >= IDLE_TRIES) throw unreachable(file.url, error);
      }
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** One connection. @returns Bytes that the file has then. */
async function receive(
  handle: FileHandle,
  start: number,
  file: RemoteFile,
  access: HubAccess,
  onBytes: (here: number) => void,
): Promise<number> {
  // Of what is compressed on the way no part can be asked for.
  const headers: Record<string, string> = { "accept-encoding": "identity" };
  if (start > 0) headers.range = `bytes=${start}-`;
  const response = await hubFetch(access)(file.url, { headers });
  const goesOn =
    response.status === 206 && response.headers.get("content-range")?.startsWith(`bytes ${start}-`);
  let here = start;
  if (start > 0 && !goesOn) {
    await write(() => handle.truncate(0));
    here = 0;
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new Error(`HTTP ${response.status} for a part of it`);
    }
  }
  for await (const piece of response.body ?? []) {
    if (here + piece.byteLength > file.size) {
      await write(() => handle.truncate(0));
      throw new PeftTrainError(
        "DOWNLOAD_FAILED",
        `${file.name} is longer than the ${file.size} bytes that the Hub says`,
        { hint: "Most likely a page of a proxy came in its place; check the network." },
      );
    }
    await write(() => handle.appendFile(piece));
    here += piece.byteLength;
    onBytes(here);
  }
  return here;
}

async function write(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    throw cacheError("the cache of the Hub", cause);
  }
}

async function contentHash(partial: string, file: RemoteFile): Promise<string> {
  const hash: Hash = file.isLfs ? createHash("sha256") : createHash("sha1").update(`blob ${file.size}\0`);
  for await (const piece of createReadStream(partial, { highWaterMark: 1024 * 1024 })) hash.update(piece);
  return hash.digest("hex");
}

async function checkSpace(partial: string, file: RemoteFile): Promise<void> {
  const folder = path.dirname(partial);
  const here = (await stat(partial).catch(() => undefined))?.size ?? 0;
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= file.size - here) return;
  const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;
  throw cacheError(
    folder,
    Object.assign(
      new Error(`${file.name} takes ${megabytes(file.size - here)}, ${megabytes(free)} are free`),
      {
        code: "ENOSPC",
      },
    ),
  );
}
