import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { outputError } from "../../data/file-error.js";
import { PeftTrainError } from "../../errors.js";

/** Name of the working folder inside an output folder that was there before the run. */
export const LOCK_INSIDE = ".peft-train-partial";

/** Working folders of this process: a killed run of another container may have had the same pid. */
const held = new Set<string>();

/** A run's working folder, which also keeps a second run away from the same output folder. */
export class OutputLock {
  private constructor(readonly path: string) {}

  /**
   * Makes the working folder, on the file system of the output folder so that files can be renamed into it. One that a
   * killed run left behind is cleared away.
   * @throws OUTPUT_EXISTS while another run writes there, OUTPUT_UNWRITABLE.
   */
  static async take(output: string, exists: boolean): Promise<OutputLock> {
    const inside = path.join(output, LOCK_INSIDE);
    const beside = path.join(path.dirname(output), `.${path.basename(output)}.peft-train-partial`);
    // A run that began before the output folder was there works beside it to its end.
    for (const lock of [inside, beside]) await clearStale(lock, output);
    const folder = exists ? inside : beside;
    try {
      await mkdir(folder);
      await writeFile(path.join(folder, "pid"), `${process.pid}\n`);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EEXIST") throw taken(output, folder, "another process");
      throw outputError(output, cause);
    }
    held.add(folder);
    return new OutputLock(folder);
  }

  async release(): Promise<void> {
    held.delete(this.path);
    await rm(this.path, { recursive: true, force: true });
  }
}

async function clearStale(lock: string, output: string): Promise<void> {
  let pid: number;
  try {
    pid = Number(await readFile(path.join(lock, "pid"), "utf8"));
  } catch {
    return; // not there; or just made by a process that mkdir will find
  }
  if (pid === process.pid ? held.has(lock) : isAlive(pid)) throw taken(output, lock, `process ${pid}`);
  await rm(lock, { recursive: true, force: true });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
}

function taken(output: string, lock: string, who: string): PeftTrainError {
  return new PeftTrainError("OUTPUT_EXISTS", `${who} is writing to ${output}`, {
    hint: `Wait for it, or give another folder; if no such run is left, delete ${lock}.`,
  });
}
