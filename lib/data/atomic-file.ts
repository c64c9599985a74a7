import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import path from "node:path";
import { outputError } from "./file-error.js";
import { keepAtExit, removeAtExit } from "./unfinished-files.js";

const BUFFER_BYTES = 256 * 1024;

/**
 * A file that appears whole or not at all: it is written beside its place under another name, synced, and renamed on
 * `commit`. Left without a commit (`await using`), nothing of it stays. Every failure is OUTPUT_UNWRITABLE.
 */
export class AtomicFile implements AsyncDisposable {
  private pending: Uint8Array[] = [];
  private pendingBytes = 0;
  private done = false;

  private constructor(
    readonly path: string,
    private readonly temporary: string,
    private readonly handle: FileHandle,
  ) {}

  static async create(file: string): Promise<AtomicFile> {
    const name = `.${path.basename(file)}.${randomBytes(6).toString("hex")}.tmp`;
    const temporary = path.join(path.dirname(file), name);
    removeAtExit(temporary);
    try {
      return new AtomicFile(file, temporary, await open(temporary, "wx"));
    } catch (cause) {
      keepAtExit(temporary);
      throw outputError(file, cause);
    }
  }

  /** Appends `data`, which must not change afterwards. */
  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? Buffer.from(data) : data;
    this.pending.push(bytes);
    this.pendingBytes += bytes.length;
    if (this.pendingBytes >= BUFFER_BYTES) await this.flush();
  }

  /** Syncs the file and gives it its name, in place of a file that was there. */
  async commit(options: { overwriteStart?: Uint8Array } = {}): Promise<void> {
    try {
      await this.flush();
      // A header that could not be known before the end.
      if (options.overwriteStart !== undefined) await writeAll(this.handle, options.overwriteStart, 0);
      await this.handle.sync();
      await this.handle.close();
      await rename(this.temporary, this.path);
      keepAtExit(this.temporary);
      await syncFolder(path.dirname(this.path));
      this.done = true;
    } catch (cause) {
      await this.abort();
      throw outputError(this.path, cause);
    }
  }

  /** Leaves nothing behind; does nothing after a commit. */
  async abort(): Promise<void> {
    if (this.done) return;
    this.done = true;
    await this.handle.close().catch(() => {}); // closed already when the rename failed
    await unlink(this.temporary).catch(() => {});
    keepAtExit(this.temporary);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.abort();
  }

  private async flush(): Promise<void> {
    const bytes = Buffer.concat(this.pending);
    this.pending = [];
    this.pendingBytes = 0;
    try {
      await writeAll(this.handle, bytes, null);
    } catch (cause) {
      await this.abort();
      throw outputError(this.path, cause);
    }
  }
}

/** The system may write less than it was asked to. */
export async function writeAll(
  handle: FileHandle,
  bytes: Uint8Array,
  position: number | null,
): Promise<void> {
  for (let start = 0; start < bytes.length; ) {
    const at = position === null ? null : position + start;
    const { bytesWritten } = await handle.write(bytes, start, bytes.length - start, at);
    start += bytesWritten;
  }
}

/** Makes the rename itself last through a power cut, where folders can be synced. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
