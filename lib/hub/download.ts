import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { rename, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { withLock } from "../setup/lock.js";
import { fillFile } from "../transfer/fill-file.js";
import type { HubAccess } from "./access.js";
import { cacheError, type RepositoryCache } from "./cache.js";
import { stopped, unreachable } from "./errors.js";
import { hubFetch } from "./fetch.js";

/** A file of a commit, as the Hub lists it. */
export interface RemoteFile {
  name: string;
  url: string;
  size: number;
  /** SHA-256 of the content, or Git's hash of it for a small file: also its name among the blobs. */
  etag: string;
  isLfs: boolean;
}

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
        await fillFile(partial, file, {
          fetch: hubFetch(access),
          signal,
          onBytes,
          unreachable,
          cannotWrite: (cause) => cacheError("the cache of the Hub", cause),
          source: "the Hub",
        });
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
