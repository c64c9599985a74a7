import { mkdir, stat } from "node:fs/promises";
import path from "node:path";

/**
 * Makes a folder and those that it is in, as far as they are not there, one by one: Node's own `recursive` never returns
 * where a file system answers ENOENT to a folder that cannot be, as /proc does.
 * @returns The topmost folder that was made; undefined where all were there.
 * @throws What the system says, as `mkdir` does.
 */
export async function makeFolder(folder: string): Promise<string | undefined> {
  const missing: string[] = [];
  for (let at = path.resolve(folder); !(await isThere(at)); at = path.dirname(at)) missing.push(at);
  if (missing.length === 0 && !(await stat(folder)).isDirectory()) await mkdir(folder); // throws EEXIST
  for (const at of missing.toReversed()) {
    try {
      await mkdir(at);
    } catch (cause) {
      // Another process may make the same folder; a link that leads nowhere stays what it is.
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST" || !(await isThere(at))) throw cause;
    }
  }
  return missing.at(-1);
}

async function isThere(folder: string): Promise<boolean> {
  try {
    await stat(folder);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw cause;
  }
}
