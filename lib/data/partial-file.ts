import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import path from "node:path";
import { syncFolder, writeAll } from "./atomic-file.js";
import { outputError } from "./file-error.js";
import { keepAtExit, removeAtExit } from "./unfinished-files.js";

/**
 * A file that grows beside its place, as NAME.partial, and gets its name on `commit`. What was synced is there after a kill or a power
 * cut, so that a later run can `reopen` it. Every failure is OUTPUT_UNWRITABLE.
 */
export class PartialFile {
  private closed = false;

  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    /** Written so far. */
    public bytes: number,
  ) {}

  static nameFor(file: string): string {
    return `${file}.partial`;
  }

  /** In place of a partial file that was there. It goes when the process exits, until `keep`. */
  static async create(file: string): Promise<PartialFile> {
    const name = PartialFile.nameFor(file);
    removeAtExit(name);
    try {
      return await PartialFile.open(file, "w", 0);
    } catch (error) {
      keepAtExit(name); // what is there is not ours
      throw error;
    }
  }

  /** Goes on after the first `bytes` of a partial file; what follows them is cut off. */
  static async reopen(file: string, bytes: number): Promise<PartialFile> {
    const partial = await PartialFile.open(file, "r+", bytes);
    try {
      const { size } = await partial.handle.stat();
      if (size < bytes) throw new Error(`${PartialFile.nameFor(file)} has ${size} bytes, expected ${bytes}`);
      await partial.handle.truncate(bytes);
    } catch (cause) {
      await partial.close();
      throw outputError(file, cause);
    }
    return partial;
  }

  private static async open(file: string, flags: string, bytes: number): Promise<PartialFile> {
    try {
      return new PartialFile(file, await open(PartialFile.nameFor(file), flags), bytes);
    } catch (cause) {
      throw outputError(file, cause);
    }
  }

  /** Appends. */
  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? Buffer.from(data) : data;
    await this.checked(() => writeAll(this.handle, bytes, this.bytes));
    this.bytes += bytes.length;
  }

  /** Makes what was written last. Fails where another program writes to the file. */
  async sync(): Promise<void> {
    await this.checked(async () => {
      await this.handle.sync();
      const { size } = await this.handle.stat();
      if (size === this.bytes) return;
      throw new Error(`another program writes to ${PartialFile.nameFor(this.path)}`);
    });
  }

  /** From now on there is something in it to go on from. */
  keep(): void {
    keepAtExit(PartialFile.nameFor(this.path));
  }

  /** Syncs the file and gives it its name, in place of a file that was there. */
  async commit(options: { overwriteStart?: Uint8Array } = {}): Promise<void> {
    await this.sync();
    await this.checked(async () => {
      if (options.overwriteStart !== undefined) await writeAll(this.handle, options.overwriteStart, 0);
      await this.handle.sync();
      await this.close();
      await rename(PartialFile.nameFor(this.path), this.path);
      this.keep();
      await syncFolder(path.dirname(this.path));
    });
  }

  /** Leaves the partial file where it is; does nothing after a commit. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.handle.close();
  }

  /** Leaves nothing behind; does nothing after a commit. */
  async abort(): Promise<void> {
    if (this.closed) return;
    await this.close();
    await unlink(PartialFile.nameFor(this.path)).catch(() => {});
    this.keep(); // it is gone
  }

  private async checked(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      throw outputError(this.path, cause);
    }
  }
}
