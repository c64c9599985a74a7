import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PeftTrainError } from "../errors.js";
import { fillFile } from "../transfer/fill-file.js";
import { patientFetch } from "../transfer/request.js";
import { diskFull } from "./errors.js";
import { withLock } from "./lock.js";
import type { PinnedWheel } from "./wheels.js";

export interface IndexDownload {
  /** Address of the index, without a slash at its end. */
  index: string;
  /** The folder where whole and partial downloads wait; what is there already is kept when one fails. */
  folder: string;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  onBytes: (here: number) => void;
}

const TIMEOUT_MS = 30_000;
const RETRY_MS = 500;
/** Whole downloads whose hash is wrong. */
const WRONG_TRIES = 2;
const AGAIN = "Check the network, the proxy variables and --mirror, then run again: npx peft-train setup";

/**
 * Downloads a wheel from a package index (PEP 503 and 691) by HTTPS, going on with what an earlier try has left, and checks
 * it against the pinned hash.
 *
 * @returns its path.
 * @throws DOWNLOAD_FAILED, OUTPUT_UNWRITABLE, ABORTED
 */
export async function downloadWheel(wheel: PinnedWheel, download: IndexDownload): Promise<string> {
  const { folder, signal, onBytes } = download;
  const file = join(folder, wheel.file);
  const partial = `${file}.part`;
  const cannotWrite = (cause: unknown): PeftTrainError => writeError(folder, cause);
  await mkdir(folder, { recursive: true });
  return withLock(
    `${file}.lock`,
    signal,
    () => {},
    async () => {
      if ((await stat(file).catch(() => undefined)) !== undefined) return file; // was checked before it got this name
      const send = fetchFrom(download);
      const found = await findWheel(wheel, download.index, send);
      const source = new URL(found.url).host;
      for (let tried = 1; ; tried++) {
        const transfer = { fetch: send, signal, onBytes, unreachable, cannotWrite, source };
        await fillFile(partial, { name: wheel.file, ...found }, transfer);
        const hash = await sha256(partial);
        if (hash === wheel.sha256) break;
        await rm(partial, { force: true });
        if (tried < WRONG_TRIES) continue;
        throw wrongHash(wheel, hash, source);
      }
      await rename(partial, file).catch((cause) => {
        throw cannotWrite(cause);
      });
      return file;
    },
  );
}

/** Removes a folder of downloads that have been unpacked; one that another process is filling stays. */
export async function removeDownloads(files: readonly string[]): Promise<void> {
  for (const file of files) await rm(file, { force: true });
  for (const folder of new Set(files.map((file) => dirname(file)))) await rmdir(folder).catch(() => {});
}

export async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(file, { highWaterMark: 1024 * 1024 })) hash.update(piece);
  return hash.digest("hex");
}

export function wrongHash(wheel: PinnedWheel, hash: string, source: string): PeftTrainError {
  const message = `${wheel.file} from ${source} has SHA-256 ${hash}; ${wheel.sha256} is expected. It was not used`;
  return new PeftTrainError("DOWNLOAD_FAILED", message, {
    hint: "The mirror or something on the way changes files. Try another: npx peft-train setup --mirror https://...",
  });
}

/** The wheel's address and size, as the index has it. */
async function findWheel(
  wheel: PinnedWheel,
  index: string,
  send: typeof fetch,
): Promise<{ url: string; size: number }> {
  const address = new URL(index); // fetch refuses an address with a password; it goes by a header
  address.username = address.password = "";
  const page = `${address.href.replace(/\/+$/, "")}/${wheel.project}/`;
  const accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";
  const response = await send(page, { headers: { accept } });
  const body = await response.text().catch((cause) => {
    throw unreachable(page, cause);
  });
  const base = response.url || page;
  const isJson = response.headers.get("content-type")?.includes("json") ?? false;
  const found = isJson ? findInJson(body, wheel.file) : findInHtml(body, wheel.file);
  if (found === undefined) {
    throw new PeftTrainError("DOWNLOAD_FAILED", `${page} has no ${wheel.file}`, {
      hint: "Give the address of an index that has all of torch, or leave --mirror out.",
    });
  }
  const url = new URL(found.href, base);
  const told = found.sha256 ?? /^#sha256=([0-9a-f]{64})$/.exec(url.hash)?.[1];
  if (told !== undefined && told !== wheel.sha256) throw wrongHash(wheel, told, new URL(base).host);
  url.hash = "";
  return { url: url.href, size: found.size ?? (await sizeOf(url.href, send)) };
}

interface Listed {
  href: string;
  sha256?: string | undefined;
  size?: number | undefined;
}

function findInJson(body: string, name: string): Listed | undefined {
  try {
    const { files } = JSON.parse(body) as {
      files: { filename: string; url: string; hashes?: { sha256?: string }; size?: number }[];
    };
    const found = files.find(({ filename }) => filename === name);
    return found && { href: found.url, sha256: found.hashes?.sha256, size: found.size };
  } catch {
    return undefined; // a page of something else in its place
  }
}

/** PEP 503: one anchor a file, whose text is the file's name. */
function findInHtml(body: string, name: string): Listed | undefined {
  for (const [, href, text] of body.matchAll(
    /<a\b[^>]*?\bhref\s*=\s*["']([^"']*)["'][^>]*>\s*([^<]*?)\s*<\/a>/gi,
  )) {
    if (text === name && href !== undefined) return { href: href.replaceAll("&amp;", "&") };
  }
  return undefined;
}

async function sizeOf(url: string, send: typeof fetch): Promise<number> {
  const response = await send(url, { method: "HEAD", headers: { "accept-encoding": "identity" } });
  const size = Number(response.headers.get("content-length"));
  if (size > 0) return size;
  throw new PeftTrainError("DOWNLOAD_FAILED", `${new URL(url).host} does not say how large ${url} is`, {
    hint: AGAIN,
  });
}

function fetchFrom({ index, env, signal }: IndexDownload): typeof fetch {
  return patientFetch({
    timeoutMs: TIMEOUT_MS,
    retryMs: RETRY_MS,
    env,
    signal,
    onNote: undefined,
    authorize: (url, headers) => {
      // As pip: name and password of the address serve its own host.
      const { username, password, origin } = new URL(index);
      if (username === "" || new URL(url).origin !== origin) return;
      const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
      headers.set("authorization", `Basic ${Buffer.from(pair).toString("base64")}`);
    },
    refusal: (response, url) =>
      new PeftTrainError(
        "DOWNLOAD_FAILED",
        `${new URL(url).host} answers HTTP ${response.status} for ${url}`,
        {
          hint: AGAIN,
        },
      ),
    unreachable,
    stopped: () => new PeftTrainError("ABORTED", "Stopped while fetching libtorch; what is here is kept"),
  });
}

function unreachable(url: string, cause: unknown): PeftTrainError {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  const { message, code } = inner as NodeJS.ErrnoException;
  return new PeftTrainError("DOWNLOAD_FAILED", `${new URL(url).host} does not answer: ${message || code}`, {
    cause,
    hint: `${AGAIN}. It goes on where it stopped.`,
  });
}

function writeError(folder: string, cause: unknown): PeftTrainError {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") return diskFull(folder, code, cause);
  return new PeftTrainError("OUTPUT_UNWRITABLE", `cannot write to ${folder}: ${message}`, {
    cause,
    hint: "Set PEFT_TRAIN_CACHE to a folder that you can write.",
  });
}
