import { createHash } from "node:crypto";
import { readFile, unlink } from "node:fs/promises";
import { PeftTrainError } from "../errors.js";
import { AtomicFile } from "./atomic-file.js";
import { ROWS_A_GROUP } from "./parquet-vectors.js";
import { PartialFile } from "./partial-file.js";
import { openVectorWriter, type VectorWriter } from "./vectors.js";

/** What decides the bytes of a file of vectors, beside the texts. */
export type VectorSettings = Readonly<Record<string, string | number | boolean | null>>;

/** NAME.partial.json: what a later run needs to go on with NAME.partial. */
interface VectorCheckpoint {
  rows: number;
  bytes: number;
  /** SHA-256 of the texts of these rows. */
  texts: string;
  settings: VectorSettings;
  state?: unknown;
}

/** Rows between two checkpoints: a whole row group of Parquet. */
export const ROWS_A_CHECKPOINT = ROWS_A_GROUP;

/**
 * A file of vectors that survives a kill: it grows as NAME.partial, and every `ROWS_A_CHECKPOINT` rows what is there is synced and noted
 * beside it. `open` with `resume` goes on from there to the same bytes that one run gives.
 */
export class ResumableVectors implements AsyncDisposable {
  private readonly hash = createHash("sha256");
  private skipped = 0;
  private done = false;

  private constructor(
    private readonly file: PartialFile,
    private readonly writer: VectorWriter,
    private readonly settings: () => Promise<VectorSettings>,
    private checkpoint: VectorCheckpoint | undefined,
  ) {
    this.resumedRows = checkpoint?.rows ?? 0;
  }

  /** Rows of an earlier run. Their texts go to `skip`, in order, before anything is written. */
  readonly resumedRows: number;

  /**
   * @param settings Asked for when they are first needed.
   * @throws CHECKPOINT_MISMATCH, CHECKPOINT_CORRUPT; OUTPUT_EXISTS where an earlier run left rows and `resume` is false;
   * OUTPUT_UNWRITABLE, USAGE.
   */
  static async open(
    file: string,
    dim: number,
    settings: () => Promise<VectorSettings>,
    resume: boolean,
  ): Promise<ResumableVectors> {
    const found = await readCheckpoint(file);
    if (found !== undefined) {
      if (!resume) throw leftRows(file, found.rows);
      requireSame(file, found.settings, await settings());
    }
    const partial = found ? await PartialFile.reopen(file, found.bytes) : await PartialFile.create(file);
    try {
      const stopped = found && { rows: found.rows, state: found.state };
      const writer = await openVectorWriter(partial, dim, stopped);
      return new ResumableVectors(partial, writer, settings, found);
    } catch (error) {
      if (found === undefined) await partial.abort();
      else await partial.close();
      throw error;
    }
  }

  /** Rows that a later run can go on from. */
  get safeRows(): number {
    return this.checkpoint?.rows ?? 0;
  }

  /** Takes texts of rows that are there. @throws CHECKPOINT_MISMATCH for others than those that the rows were made of. */
  skip(texts: readonly string[]): void {
    if (texts.length === 0) return;
    this.see(texts);
    this.skipped += texts.length;
    if (this.skipped === this.resumedRows) this.requireSkipped();
  }

  /** Appends the vectors of texts. A checkpoint is made where the rows come to a multiple of `ROWS_A_CHECKPOINT`. */
  async write(texts: readonly string[], vectors: readonly Float32Array[]): Promise<void> {
    for (const vector of vectors) await this.writer.write(vector);
    this.see(texts);
    if (this.writer.rows % ROWS_A_CHECKPOINT === 0) await this.save();
  }

  /** Gives the file its name. @throws CHECKPOINT_MISMATCH when there were fewer texts than rows. */
  async close(): Promise<void> {
    if (this.skipped < this.resumedRows) this.requireSkipped();
    await this.writer.close();
    this.done = true;
    await unlink(checkpointName(this.file.path)).catch(() => {});
  }

  /** Keeps what a later run can go on from, and nothing else; does nothing after `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.done) return;
    if (this.checkpoint === undefined) await this.file.abort();
    else await this.file.close();
  }

  private see(texts: readonly string[]): void {
    for (const text of texts) this.hash.update(`${text.length}:${text}`);
  }

  private requireSkipped(): void {
    const seen = this.hash.copy().digest("hex");
    if (this.skipped === this.resumedRows && seen === this.checkpoint?.texts) return;
    throw new PeftTrainError(
      "CHECKPOINT_MISMATCH",
      `${PartialFile.nameFor(this.file.path)} holds the vectors of ${this.resumedRows} texts, which are not the first of this input`,
      { hint: "Give the input that it was begun with, or delete it and begin again." },
    );
  }

  private async save(): Promise<void> {
    await this.file.sync();
    const checkpoint: VectorCheckpoint = {
      rows: this.writer.rows,
      bytes: this.file.bytes,
      texts: this.hash.copy().digest("hex"),
      settings: await this.settings(),
      state: this.writer.state(),
    };
    await using file = await AtomicFile.create(checkpointName(this.file.path));
    await file.write(`${JSON.stringify(checkpoint)}\n`);
    await file.commit();
    this.checkpoint = checkpoint;
    this.file.keep();
  }
}

function checkpointName(file: string): string {
  return `${PartialFile.nameFor(file)}.json`;
}

async function readCheckpoint(file: string): Promise<VectorCheckpoint | undefined> {
  const name = checkpointName(file);
  const text = await readFile(name, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    const found = JSON.parse(text) as VectorCheckpoint;
    if (Number.isInteger(found.rows) && Number.isInteger(found.bytes) && typeof found.settings === "object")
      return found;
  } catch {
    // told below
  }
  throw new PeftTrainError("CHECKPOINT_CORRUPT", `${name} is damaged`, {
    hint: "Delete it and begin again.",
  });
}

function leftRows(file: string, rows: number): PeftTrainError {
  return new PeftTrainError(
    "OUTPUT_EXISTS",
    `${PartialFile.nameFor(file)} holds ${rows} rows of an earlier run that did not end`,
    { hint: `Go on with --resume, or delete ${checkpointName(file)} to begin again.` },
  );
}

function requireSame(file: string, then: VectorSettings, now: VectorSettings): void {
  for (const name of new Set([...Object.keys(then), ...Object.keys(now)])) {
    if (then[name] === now[name]) continue;
    throw new PeftTrainError(
      "CHECKPOINT_MISMATCH",
      `${PartialFile.nameFor(file)} was begun with ${name} ${JSON.stringify(then[name])}, now it is ${JSON.stringify(now[name])}`,
      { hint: "Give the same options, or delete it and begin again." },
    );
  }
}
