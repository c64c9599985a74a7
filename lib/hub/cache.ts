import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { outputError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";

/**
 * A repository in the cache that Python's huggingface_hub and every library of Hugging Face shares: contents under
 * blobs/ by their etag, snapshots/COMMIT/ of links to them, refs/ with the commits of branches and tags, and .no_exist/
 * for files that a commit is known not to have.
 */
export class RepositoryCache {
  readonly path: string;
  private readonly locks: string;

  constructor(cache: string, id: string) {
    const name = ["models", ...id.split("/")].join("--");
    this.path = path.join(cache, name);
    this.locks = path.join(cache, ".locks", name);
  }

  snapshot(commit: string): string {
    return path.join(this.path, "snapshots", commit);
  }

  blob(etag: string): string {
    return path.join(this.path, "blobs", etag);
  }

  /** Not Python's: it locks a file by flock, which Node has not. Its name only keeps our own processes apart. */
  async lock(etag: string): Promise<string> {
    await this.make(this.locks);
    await this.make(path.dirname(this.blob(etag)));
    return path.join(this.locks, `${etag}.peft-train.lock`);
  }

  /** The commit that a revision was at when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = await readFile(path.join(this.path, "refs", revision), "utf8").catch(() => undefined);
    return text !== undefined && isCommit(text.trim()) ? text.trim() : undefined;
  }

  async noteCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    const file = path.join(this.path, "refs", revision);
    const draft = `${file}.${randomUUID()}.tmp`;
    await this.make(path.dirname(file));
    await this.write(file, async () => {
      await writeFile(draft, commit);
      await rename(draft, file);
    });
  }

  /** Size of a file of a snapshot that is here whole. */
  async sizeOf(commit: string, name: string): Promise<number | undefined> {
    return (await stat(path.join(this.snapshot(commit), name)).catch(() => undefined))?.size;
  }

  /** Names of the files of a snapshot, as far as they are here. */
  async list(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit);
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
  }

  /** Makes a blob a file of a snapshot. */
  async link(commit: string, name: string, etag: string): Promise<void> {
    const file = path.join(this.snapshot(commit), name);
    await this.make(path.dirname(file));
    await this.write(file, async () => {
      const draft = `${file}.${randomUUID()}.tmp`;
      await symlink(path.relative(path.dirname(file), this.blob(etag)), draft);
      await rename(draft, file).catch(async (error) => {
        await rm(draft, { force: true });
        throw error;
      });
    });
  }

  async isKnownMissing(commit: string, name: string): Promise<boolean> {
    return stat(path.join(this.path, ".no_exist", commit, name)).then(
      () => true,
      () => false,
    );
  }

  async noteMissing(commit: string, name: string): Promise<void> {
    const file = path.join(this.path, ".no_exist", commit, name);
    await this.make(path.dirname(file));
    await this.write(file, () => writeFile(file, ""));
  }

  private make(folder: string): Promise<void> {
    return this.write(folder, async () => void (await mkdir(folder, { recursive: true })));
  }

  private async write(file: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      throw cacheError(file, cause);
    }
  }
}

/** A failed write into the cache. */
export function cacheError(file: string, cause: unknown): PeftTrainError {
  return new PeftTrainError("OUTPUT_UNWRITABLE", outputError(file, cause).message, {
    hint: "Make room, or set HF_HOME to a folder that can be written.",
    cause,
  });
}

export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text);
}
