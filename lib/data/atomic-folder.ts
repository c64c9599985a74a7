import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { lstat, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { syncFolder } from "./atomic-file.js";
import { outputError } from "./file-error.js";
import { makeFolder } from "./make-folder.js";

/**
 * A folder that appears whole or not at all: it is filled beside its place under another name and renamed on `commit`.
 * Left without a commit (`await using`), or when the process exits, nothing of it stays.
 */
export class AtomicFolder implements AsyncDisposable {
  private done = false;
  private readonly removeOnExit = (): void => rmSync(this.draft, { recursive: true, force: true });

  private constructor(
    /** Absolute. */
    readonly path: string,
    /** Where to write until then. */
    readonly draft: string,
  ) {
    process.once("exit", this.removeOnExit);
  }

  /**
   * @param name A folder that is not there, or empty.
   * @throws USAGE where that is no name, OUTPUT_EXISTS, OUTPUT_UNWRITABLE
   */
  static async create(name: string): Promise<AtomicFolder> {
    if (typeof name !== "string" || name === "") {
      throw new PeftTrainError(
        "USAGE",
        `output: expected the path of a folder, found ${JSON.stringify(name)}`,
      );
    }
    const folder = path.resolve(name);
    await requireEmpty(folder, name);
    const draft = path.join(
      path.dirname(folder),
      `.${path.basename(folder)}.${randomBytes(6).toString("hex")}.tmp`,
    );
    try {
      await makeFolder(path.dirname(folder));
      await mkdir(draft);
    } catch (cause) {
      throw outputError(folder, cause);
    }
    return new AtomicFolder(folder, draft);
  }

  /** Gives the folder its name. */
  async commit(): Promise<void> {
    try {
      await syncFolder(this.draft);
      await rename(this.draft, this.path);
      await syncFolder(path.dirname(this.path));
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "ENOTEMPTY" || code === "EEXIST") throw exists(this.path, "is no longer empty");
      throw outputError(this.path, cause);
    }
    this.finish();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.done) return;
    this.finish();
    await rm(this.draft, { recursive: true, force: true });
  }

  private finish(): void {
    this.done = true;
    process.off("exit", this.removeOnExit);
  }
}

async function requireEmpty(folder: string, name: string): Promise<void> {
  let names: string[];
  try {
    if ((await lstat(folder)).isSymbolicLink()) throw exists(name, "is a symbolic link");
    if (!(await stat(folder)).isDirectory()) throw exists(name, "is a file");
    names = await readdir(folder);
  } catch (cause) {
    if (cause instanceof PeftTrainError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return;
    throw outputError(folder, cause);
  }
  if (names.length === 0) return;
  const list = names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
  throw exists(name, `is not empty: it holds ${list}`);
}

function exists(name: string, what: string): PeftTrainError {
  return new PeftTrainError("OUTPUT_EXISTS", `${name} ${what}`, {
    hint: "Give a new name or an empty folder.",
  });
}
