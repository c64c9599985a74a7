import { open, readFile, stat, unlink, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const POLL_MS = 250;
/** The holder touches its lock this often; one left alone for much longer has lost its holder. */
const HEARTBEAT_MS = 5_000;
const STALE_MS = 60_000;

interface Holder {
  pid: number;
  host: string;
}

/**
 * Runs `work` while holding the lock file; waits for another process that holds it, and takes over from one that died.
 * Two that take over in the same instant may both go on: what they do must end in a rename.
 *
 * @param onWait called once, with the other process's id, when there is something to wait for.
 */
export async function withLock<T>(
  file: string,
  signal: AbortSignal,
  onWait: (pid: number | undefined) => void,
  work: () => Promise<T>,
): Promise<T> {
  let told = false;
  while (!(await take(file))) {
    signal.throwIfAborted();
    const holder = await readHolder(file);
    if (await isStale(file, holder)) {
      await unlink(file).catch(ignoreMissing);
      continue;
    }
    if (!told) onWait(holder?.pid);
    told = true;
    await sleep(POLL_MS, undefined, { signal }).catch(() => {}); // an abort is seen at the top
  }
  const heartbeat = setInterval(() => {
    const now = new Date();
    utimes(file, now, now).catch(() => {}); // at worst another process takes over, and the rename decides
  }, HEARTBEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    await unlink(file).catch(ignoreMissing);
  }
}

async function take(file: string): Promise<boolean> {
  try {
    const handle = await open(file, "wx");
    const holder: Holder = { pid: process.pid, host: hostname() };
    await handle.writeFile(JSON.stringify(holder)).finally(() => handle.close());
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function readHolder(file: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Holder;
  } catch {
    return undefined; // just created and not yet written, or gone
  }
}

async function isStale(file: string, holder: Holder | undefined): Promise<boolean> {
  if (holder?.host === hostname() && !isAlive(holder.pid)) return true;
  const found = await stat(file).catch(() => undefined);
  return found !== undefined && Date.now() - found.mtimeMs > STALE_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // somebody else's process
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
