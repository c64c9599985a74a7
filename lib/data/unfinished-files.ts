import { unlinkSync } from "node:fs";

/** Files of this thread that go when it exits: `process.exit`, as on a second Ctrl-C, runs no `finally`. */
const unfinished = new Set<string>();

/** To be called before the file is there, so that there is no moment in between. */
export function removeAtExit(file: string): void {
  if (unfinished.size === 0) process.once("exit", removeUnfinished);
  unfinished.add(file);
}

/** For a file that is to stay, or is gone. */
export function keepAtExit(file: string): void {
  unfinished.delete(file);
  if (unfinished.size === 0) process.off("exit", removeUnfinished);
}

function removeUnfinished(): void {
  for (const file of unfinished) {
    try {
      unlinkSync(file);
    } catch {
      // Renamed or removed already.
    }
  }
}
