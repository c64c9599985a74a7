import { type FileHandle, open } from "node:fs/promises";
import { PeftTrainError } from "../errors.js";

export interface FileToFill {
  name: string;
  url: string;
  size: number;
}

export interface Transfer {
  /** As `patientFetch` gives it. */
  fetch: typeof fetch;
  signal: AbortSignal;
  /** Bytes that are here. */
  onBytes: (here: number) => void;
  unreachable(url: string, cause: unknown): PeftTrainError;
  cannotWrite(cause: unknown): PeftTrainError;
  /** Who gave the size, for messages. */
  source: string;
}

/** Connections in a row that bring nothing new. */
const IDLE_TRIES = 5;

/** Downloads until the partial file has its size, over as many connections as it takes. */
export async function fillFile(partial: string, file: FileToFill, transfer: Transfer): Promise<void> {
  const { onBytes } = transfer;
  let handle: FileHandle;
  try {
    handle = await open(partial, "a");
  } catch (cause) {
    throw transfer.cannotWrite(cause);
  }
  try {
    let idle = 0;
    for (;;) {
      let here = (await handle.stat()).size;
      if (here > file.size) {
        await handle.truncate(0);
        here = 0;
      }
      onBytes(here);
      if (here === file.size) break;
      const before = here;
      try {
        here = await receive(handle, here, file, transfer);
        if (here === file.size) break;
        throw new Error(`it ends after ${here} of ${file.size} bytes`);
      } catch (error) {
        if (error instanceof PeftTrainError || transfer.signal.aborted) throw error;
        idle = (await handle.stat()).size > before ? 0 : idle + 1;
        if (idle >= IDLE_TRIES) throw transfer.unreachable(file.url, error);
      }
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** One connection. @returns Bytes that the file has then. */
async function receive(
  handle: FileHandle,
  start: number,
  file: FileToFill,
  transfer: Transfer,
): Promise<number> {
  const write = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (cause) {
      throw transfer.cannotWrite(cause);
    }
  };
  // Of what is compressed on the way no part can be asked for.
  const headers: Record<string, string> = { "accept-encoding": "identity" };
  if (start > 0) headers.range = `bytes=${start}-`;
  const response = await transfer.fetch(file.url, { headers });
  const goesOn =
    response.status === 206 && response.headers.get("content-range")?.startsWith(`bytes ${start}-`);
  let here = start;
  if (start > 0 && !goesOn) {
    await write(() => handle.truncate(0));
    here = 0;
    if (response.status !== 200) {
      await response.body?.cancel();
      throw new Error(`HTTP ${response.status} for a part of it`);
    }
  }
  for await (const piece of response.body ?? []) {
    if (here + piece.byteLength > file.size) {
      await write(() => handle.truncate(0));
      throw new PeftTrainError(
        "DOWNLOAD_FAILED",
        `${file.name} is longer than the ${file.size} bytes that ${transfer.source} says`,
        { hint: "Most likely a page of a proxy came in its place; check the network." },
      );
    }
    await write(() => handle.appendFile(piece));
    here += piece.byteLength;
    transfer.onBytes(here);
  }
  return here;
}
