import { existsSync, rmSync } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm, rmdir, stat } from "node:fs/promises";
import path from "node:path";
import { syncFolder } from "../adapter/durable.js";
import { type AdapterContent, stageAdapter } from "../adapter/folder.js";
import { outputError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import type { SavedFile } from "./events.js";
import { jsonLine } from "./json-line.js";
import { earlierCheckpoints, LOG_FILE, requireFreeFolder } from "./output-content.js";
import { OutputLock } from "./output-lock.js";

/**
 * The folder that a run writes to. Everything is written beside it first and renamed: until the first save there is no
 * output folder (or it stays as it was), and a run that fails earlier leaves nothing behind.
 *
 * Below the lock's folder, `content` is the output folder in the making and `next` what is about to replace files.
 */
export class OutputFolder implements AsyncDisposable {
  private savedOnce = false;
  /** For a second Ctrl-C, which leaves no time to wait. */
  private readonly removeOnExit = (): void => rmSync(this.lock.path, { recursive: true, force: true });

  private constructor(
    /** Absolute. */
    readonly path: string,
    private readonly lock: OutputLock,
    private readonly logFile: FileHandle,
    /** Topmost folder that had to be made for the output folder to be in. */
    private readonly madeParent: string | undefined,
    private exists: boolean,
  ) {
    process.once("exit", this.removeOnExit);
  }

  /**
   * Takes the folder for this run: refuses what would be overwritten, and finds out at once whether it can be written.
   * @throws OUTPUT_EXISTS, OUTPUT_UNWRITABLE
   */
  static async open(name: string, overwrite: boolean): Promise<OutputFolder> {
    const folder = path.resolve(name);
    const exists = await requireFreeFolder(folder, name, overwrite);
    let madeParent: string | undefined;
    if (!exists) {
      try {
        madeParent = await mkdir(path.dirname(folder), { recursive: true });
      } catch (cause) {
        throw outputError(folder, cause);
      }
    }
    let lock: OutputLock | undefined;
    try {
      lock = await OutputLock.take(folder, exists);
      await mkdir(path.join(lock.path, "content"));
      const logFile = await open(path.join(lock.path, "content", LOG_FILE), "a");
      return new OutputFolder(folder, lock, logFile, madeParent, exists);
    } catch (cause) {
      await lock?.release();
      if (madeParent !== undefined) await removeEmpty(madeParent, folder);
      throw cause instanceof PeftTrainError ? cause : outputError(folder, cause);
    }
  }

  /** Appends one line to train_log.jsonl. */
  async log(entry: object): Promise<void> {
    try {
      await this.logFile.appendFile(`${jsonLine(entry)}\n`);
    } catch (cause) {
      throw outputError(path.join(this.path, LOG_FILE), cause);
    }
  }

  /** Writes the adapter into the output folder, in place of the one of an earlier save. */
  async saveAdapter(content: AdapterContent): Promise<SavedFile[]> {
    const staged = await this.stage(content);
    if (this.exists) {
      await this.makeRoom();
      for (const name of staged.names) await this.move(path.join(staged.folder, name), this.at(name));
    } else {
      for (const name of staged.names) await this.move(path.join(staged.folder, name), this.draft(name));
    }
    return this.publish(staged.names);
  }

  /** Writes an adapter into a folder of its own inside the output folder, such as `epoch_0`. */
  async saveCheckpoint(name: string, content: AdapterContent): Promise<SavedFile[]> {
    const staged = await this.stage(content);
    if (this.exists) {
      await this.makeRoom();
      // A folder cannot be renamed onto one that holds something.
      if (existsSync(this.at(name))) await this.move(this.at(name), path.join(this.lock.path, `old-${name}`));
      await this.move(staged.folder, this.at(name));
    } else {
      await this.move(staged.folder, this.draft(name));
    }
    return this.publish(staged.names.map((file) => path.join(name, file)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off("exit", this.removeOnExit);
    await this.logFile.close().catch(() => {});
    await this.lock.release();
    if (!this.exists && this.madeParent !== undefined) await removeEmpty(this.madeParent, this.path);
  }

  private at(name: string): string {
    return path.join(this.path, name);
  }

  private draft(name: string): string {
    return path.join(this.lock.path, "content", name);
  }

  private async stage(content: AdapterContent): Promise<{ folder: string; names: string[] }> {
    const folder = path.join(this.lock.path, "next");
    try {
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder);
    } catch (cause) {
      throw outputError(folder, cause);
    }
    const names = await stageAdapter(folder, content);
    await syncFolder(folder);
    return { folder, names };
  }

  /** Before the first save into a folder that was there: an earlier run's checkpoints and log make way. */
  private async makeRoom(): Promise<void> {
    if (this.savedOnce) return;
    for (const name of await earlierCheckpoints(this.path)) {
      await this.move(this.at(name), path.join(this.lock.path, `old-${name}`));
    }
    await this.move(this.draft(LOG_FILE), this.at(LOG_FILE));
    this.savedOnce = true;
  }

  private async publish(names: string[]): Promise<SavedFile[]> {
    if (!this.exists) {
      await this.move(path.join(this.lock.path, "content"), this.path);
      this.exists = true;
      this.savedOnce = true;
    }
    await syncFolder(this.path);
    await syncFolder(path.dirname(this.path));
    return Promise.all(
      names.map(async (name) => ({ name, bytes: (await stat(path.join(this.path, name))).size })),
    );
  }

  private async move(from: string, to: string): Promise<void> {
    try {
      await rename(from, to);
    } catch (cause) {
      throw outputError(to, cause);
    }
  }
}

/** Removes the folders from `top` down to the parent of `folder`, as far as they are empty. */
async function removeEmpty(top: string, folder: string): Promise<void> {
  for (let at = path.dirname(folder); at.startsWith(top); at = path.dirname(at)) {
    try {
      await rmdir(at);
    } catch {
      return;
    }
  }
}
