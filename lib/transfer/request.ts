import { setTimeout as sleep } from "node:timers/promises";
import { PeftTrainError } from "../errors.js";
import { proxiedFetch } from "./proxy.js";

/** Who is asked: how long it may take, what is added to a request, and what failures are called. */
export interface Peer {
  /** How long a server may be silent. */
  timeoutMs: number;
  /** Before the second try; doubled for each further one. */
  retryMs: number;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal | undefined;
  /** A word to the user, such as how long the server asks to wait. */
  onNote: ((message: string) => void) | undefined;
  /** Sets or takes away what identifies the user, for this address. */
  authorize(url: string, headers: Headers): void;
  /** An answer that is no success. */
  refusal(response: Response, url: string): PeftTrainError;
  /** No answer, or none to the end. */
  unreachable(url: string, cause: unknown): PeftTrainError;
  /** `signal` ended it. @param what as "asking" or "waiting" */
  stopped(what: "asking" | "waiting"): PeftTrainError;
}

/** Tries in all, for what may pass. */
const TRIES = 5;
/** A server that is not there at all is asked less often: most likely there is no network. */
const TRIES_TO_CONNECT = 2;
const MOST_REDIRECTS = 10;
/** Longer waits than this are left to the user. */
const MOST_WAIT_MS = 120_000;
const TOLD_WAIT_MS = 5_000;
/** The slowest upload that is waited for. */
const UPLOAD_BYTES_PER_MS = 20;
const PASSING: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * A `fetch` that tries again what may pass, watches the clock, takes the proxy of the environment, and follows redirects, but
 * not from https to http.
 *
 * @throws what the peer calls its failures. Only a conflict (409) and a range that is not there (416) come back as responses
 * that are not ok.
 */
export function patientFetch(peer: Peer): typeof fetch {
  return async (input, init = {}) => {
    const url = input instanceof Request ? input.url : String(input);
    for (let tried = 1; ; tried++) {
      let wait: number;
      try {
        const response = await follow(url, init, peer);
        if (response.ok || response.status === 409 || response.status === 416) return response;
        const failure = peer.refusal(response, url);
        wait = waitOf(response, peer, tried);
        await response.body?.cancel().catch(() => {});
        if (!PASSING.has(response.status) || tried >= TRIES || wait > MOST_WAIT_MS) throw failure;
      } catch (error) {
        if (peer.signal?.aborted) throw peer.stopped("asking");
        if (error instanceof PeftTrainError) throw error;
        if (tried >= (isConnecting(error) ? TRIES_TO_CONNECT : TRIES)) throw peer.unreachable(url, error);
        wait = peer.retryMs * 2 ** (tried - 1);
      }
      if (wait >= TOLD_WAIT_MS) {
        peer.onNote?.(`${new URL(url).host} asks to wait ${Math.ceil(wait / 1000)} s`);
      }
      await sleep(wait, undefined, peer.signal && { signal: peer.signal }).catch(() => {});
      if (peer.signal?.aborted) throw peer.stopped("waiting");
    }
  };
}

/** One request and the redirects that follow from it. */
async function follow(url: string, init: RequestInit, peer: Peer): Promise<Response> {
  let next = init;
  let at = url;
  for (let i = 0; i <= MOST_REDIRECTS; i++) {
    const response = await once(at, next, peer);
    const location = response.headers.get("location");
    if (!REDIRECTS.has(response.status) || location === null) return response;
    await response.body?.cancel().catch(() => {});
    const target = new URL(location, at);
    if (new URL(at).protocol === "https:" && target.protocol !== "https:") {
      throw new PeftTrainError(
        "DOWNLOAD_FAILED",
        `${new URL(at).host} leads from https to ${target.protocol}//`,
      );
    }
    const asGet = response.status === 303 || (response.status < 303 && next.method === "POST");
    if (asGet) next = { ...next, method: "GET", body: null };
    at = target.href;
  }
  throw new PeftTrainError("DOWNLOAD_FAILED", `${new URL(url).host} redirects in a circle`);
}

/** One request. Its response fails like a cut connection when the server falls silent on the way. */
async function once(url: string, init: RequestInit, peer: Peer): Promise<Response> {
  const headers = new Headers(init.headers);
  const send = await proxiedFetch(peer.env);
  peer.authorize(url, headers);
  const silence = new AbortController();
  const upload = init.body instanceof Blob ? init.body.size / UPLOAD_BYTES_PER_MS : 0;
  const timer = setTimeout(
    () => silence.abort(new Error(`silent for ${peer.timeoutMs / 1000} s`)),
    peer.timeoutMs + upload,
  );
  const signals = [silence.signal, peer.signal, init.signal].filter((one) => one instanceof AbortSignal);
  try {
    const response = await send(url, {
      ...init,
      headers,
      redirect: "manual",
      signal: AbortSignal.any(signals),
    });
    if (response.body === null) {
      clearTimeout(timer);
      return response;
    }
    return watched(response, timer);
  } catch (error) {
    clearTimeout(timer);
    throw silence.signal.aborted ? silence.signal.reason : error;
  }
}

/** The response with a body that winds `timer` up again with every piece. */
function watched(response: Response, timer: NodeJS.Timeout): Response {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      timer.refresh();
      try {
        const { done, value } = await reader.read();
        if (done) {
          clearTimeout(timer);
          controller.close();
        } else controller.enqueue(value);
      } catch (error) {
        clearTimeout(timer);
        controller.error(error);
      }
    },
    cancel: async (reason) => {
      clearTimeout(timer);
      await reader.cancel(reason);
    },
  });
  const { status, statusText, headers, url } = response;
  return Object.defineProperty(new Response(body, { status, statusText, headers }), "url", { value: url });
}

/** Retry-After in seconds or as a date, else a wait that doubles. */
function waitOf(response: Response, peer: Peer, tried: number): number {
  const text = response.headers.get("retry-after");
  const seconds = Number(text);
  const asked =
    text === null ? Number.NaN : Number.isFinite(seconds) ? 1000 * seconds : Date.parse(text) - Date.now();
  return Number.isFinite(asked) ? Math.max(0, asked) : peer.retryMs * 2 ** (tried - 1);
}

function isConnecting(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH"].includes(code ?? "");
}
