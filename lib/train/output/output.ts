import { existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rm, rmdir, stat } from "node:fs/promises";
import path from "node:path";
import { copyDurably, syncFolder, writeDurably } from "../../adapter/durable.js";
import { CHECKPOINT, EVENTS_FOLDER, LOG_FILE, REPORT_FILE, RUN_CONFIG_FILE } from "../../adapter/folder.js";
import { RECORD_FILE, readRecord } from "../../adapter/record.js";
import { fileError, outputError } from "../../data/file-error.js";
import { makeFolder } from "../../data/make-folder.js";
import { PeftTrainError } from "../../errors.js";
import {
  bestWeightsFile,
  type CheckpointContent,
  savedCheckpoint,
  stageState,
} from "../checkpoint/checkpoint.js";
import { readManifest, writeManifest } from "../checkpoint/manifest.js";
import type { SavedEvent, SavedFile } from "../events.js";
import { jsonLine } from "../json-line.js";
import {
  CONFIG_FILES,
  earlierContent,
  requireFreeFolder,
  SAVED_FILES,
  type SavedContent,
  stageContent,
  weightsFileOf,
} from "./output-content.js";
import { OutputLock } from "./output-lock.js";

/**
 * The folder that a run writes to. Everything is written beside it first and renamed: until the first save there is no
 * output folder (or it stays as it was), and a run that fails earlier leaves nothing behind.
 *
 * What replaces files is done without a pause for signals, so that a second Ctrl-C finds it done or not begun. A run that
 * is killed outright in the middle leaves a folder without adapter_config.json or config.json, which nobody takes for an adapter
 * or a model.
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
    /** Whether a run goes on that wrote here: then all that is there stays. */
    private readonly goOn: boolean,
  ) {
    process.once("exit", this.removeOnExit);
  }

  /**
   * Takes the folder for this run: refuses what would be overwritten, and finds out at once whether it can be written.
   * With `goOn` it is the folder of a run that is resumed there.
   * @throws OUTPUT_EXISTS, OUTPUT_UNWRITABLE
   */
  static async open(
    name: string,
    { overwrite, goOn = false }: { overwrite: boolean; goOn?: boolean },
  ): Promise<OutputFolder> {
    const folder = path.resolve(name);
    const exists = goOn || (await requireFreeFolder(folder, name, overwrite));
    let madeParent: string | undefined;
    if (!exists) {
      try {
        madeParent = await makeFolder(path.dirname(folder));
      } catch (cause) {
        throw outputError(folder, cause);
      }
    }
    let lock: OutputLock | undefined;
    try {
      lock = await OutputLock.take(folder, exists);
      await mkdir(path.join(lock.path, "content"));
      const logFile = await open(path.join(lock.path, "content", LOG_FILE), "a");
      return new OutputFolder(folder, lock, logFile, madeParent, exists, goOn);
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

  /** Begins train_log.jsonl with the lines of the run that is resumed. */
  async restoreLog(lines: string): Promise<void> {
    try {
      await this.logFile.appendFile(lines);
      await this.logFile.sync();
    } catch (cause) {
      throw outputError(path.join(this.path, LOG_FILE), cause);
    }
    if (!this.goOn) return;
    this.move(this.draft(LOG_FILE), this.at(LOG_FILE));
    this.savedOnce = true;
  }

  /**
   * Makes a folder that comes into the output folder with the first save; files in it may stay open meanwhile. A run that
   * goes on adds to the folder of its earlier part.
   */
  async addEventsFolder(): Promise<string> {
    const folder = this.goOn ? this.at(EVENTS_FOLDER) : this.draft(EVENTS_FOLDER);
    try {
      await mkdir(folder, { recursive: this.goOn });
    } catch (cause) {
      throw outputError(folder, cause);
    }
    return folder;
  }

  /** Writes what was trained and the run's configuration into the output folder, in place of those of an earlier save. */
  async save(content: SavedContent, runConfig: string): Promise<SavedFile[]> {
    const staged = await this.stage(content);
    await writeDurably(path.join(staged.folder, RUN_CONFIG_FILE), runConfig);
    staged.names.unshift(RUN_CONFIG_FILE);
    if (this.exists) {
      this.makeRoom();
      this.clear(SAVED_FILES);
      for (const name of staged.names) {
        // The others are on the disk before the one that makes an adapter or a model of them.
        if (CONFIG_FILES.includes(name)) syncFolder(this.path);
        this.move(path.join(staged.folder, name), this.at(name));
      }
    } else {
      for (const name of staged.names) this.move(path.join(staged.folder, name), this.draft(name));
    }
    return this.publish(staged.names);
  }

  /**
   * Writes a checkpoint into a folder of its own inside the output folder, such as `epoch_0`; then removes the oldest
   * others, so that at most `limit` are left.
   */
  async saveCheckpoint(
    name: string,
    content: SavedContent,
    checkpoint: CheckpointContent,
    limit: number | null,
  ): Promise<Omit<SavedEvent, "event">> {
    const staged = await this.stage(content);
    await stageState(staged.folder, checkpoint, await this.readLog());
    if (checkpoint.withBest) {
      const weights = weightsFileOf(content);
      await copyDurably(this.at(weights), path.join(staged.folder, bestWeightsFile(weights)));
    }
    const manifest = await writeManifest(staged.folder, checkpoint.state);
    syncFolder(staged.folder);
    if (this.exists) {
      this.makeRoom();
      this.clear([name]); // a folder cannot be renamed onto one that holds something
      this.move(staged.folder, this.at(name));
    } else {
      this.move(staged.folder, this.draft(name));
    }
    await this.publish([]);
    if (limit !== null) await this.prune(name, limit);
    return savedCheckpoint(this.at(name), manifest);
  }

  /** Whether this run's log and what it saved are in the folder. */
  get hasSaved(): boolean {
    return this.savedOnce;
  }

  /** Writes report.html in place of an earlier one. */
  async saveReport(html: string): Promise<void> {
    const staged = path.join(this.lock.path, REPORT_FILE);
    await writeDurably(staged, html);
    this.move(staged, this.at(REPORT_FILE));
    syncFolder(this.path);
  }

  /** Removes the checkpoints of the fewest steps, damaged ones first, but never `newest`. */
  private async prune(newest: string, limit: number): Promise<void> {
    const others = readdirSync(this.path).filter((name) => CHECKPOINT.test(name) && name !== newest);
    const steps = await Promise.all(
      others.map((name) =>
        readManifest(this.at(name)).then(
          ({ step }) => step,
          () => -1,
        ),
      ),
    );
    const oldestFirst = others.map((name, i) => ({ name, step: steps[i] as number }));
    oldestFirst.sort((a, b) => a.step - b.step);
    const surplus = oldestFirst.slice(0, Math.max(0, others.length + 1 - limit));
    this.clear(surplus.map(({ name }) => name));
    for (const { name: old } of surplus) {
      rmSync(path.join(this.lock.path, `old-${old}`), { recursive: true, force: true });
    }
  }

  at(name: string): string {
    return path.join(this.path, name);
  }

  /** Step of the adapter or model in the folder; null where there is none that is whole. */
  async savedStep(): Promise<number | null> {
    if (!CONFIG_FILES.some((name) => existsSync(this.at(name)))) return null;
    return (await readRecord(this.at(RECORD_FILE)))?.step ?? null;
  }

  private async readLog(): Promise<string> {
    const file = this.savedOnce ? this.at(LOG_FILE) : this.draft(LOG_FILE);
    return readFile(file, "utf8").catch((cause: unknown) => {
      throw fileError(file, cause);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off("exit", this.removeOnExit);
    await this.logFile.close().catch(() => {});
    await this.lock.release();
    if (!this.exists && this.madeParent !== undefined) await removeEmpty(this.madeParent, this.path);
  }

  private draft(name: string): string {
    return path.join(this.lock.path, "content", name);
  }

  private async stage(content: SavedContent): Promise<{ folder: string; names: string[] }> {
    const folder = path.join(this.lock.path, "next");
    try {
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder);
    } catch (cause) {
      throw outputError(folder, cause);
    }
    const names = await stageContent(folder, content);
    syncFolder(folder);
    return { folder, names };
  }

  /** Before the first save into a folder that was there: all that an earlier run has left makes way. */
  private makeRoom(): void {
    if (this.savedOnce) return;
    this.clear(earlierContent(this.path));
    this.move(this.draft(LOG_FILE), this.at(LOG_FILE));
    if (existsSync(this.draft(EVENTS_FOLDER))) this.move(this.draft(EVENTS_FOLDER), this.at(EVENTS_FOLDER));
    this.savedOnce = true;
  }

  /** Moves entries of the output folder out of the way, as far as they are there; the first is gone for good first. */
  private clear(names: readonly string[]): void {
    const there = names.filter((name) => existsSync(this.at(name)));
    for (const [i, name] of there.entries()) {
      const old = path.join(this.lock.path, `old-${name}`);
      try {
        rmSync(old, { recursive: true, force: true });
      } catch (cause) {
        throw outputError(old, cause);
      }
      this.move(this.at(name), old);
      if (i === 0) syncFolder(this.path);
    }
  }

  private async publish(names: string[]): Promise<SavedFile[]> {
    if (!this.exists) {
      this.move(path.join(this.lock.path, "content"), this.path);
      this.exists = true;
      this.savedOnce = true;
    }
    syncFolder(this.path);
    syncFolder(path.dirname(this.path));
    return Promise.all(
      names.map(async (name) => ({ name, bytes: (await stat(path.join(this.path, name))).size })),
    );
  }

  private move(from: string, to: string): void {
    try {
      renameSync(from, to);
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
