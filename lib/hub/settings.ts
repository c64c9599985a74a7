import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { PeftTrainError } from "../errors.js";

/** Where the Hub is, where its files are kept and who asks: as Python's huggingface_hub takes it from the environment. */
export interface HubSettings {
  /** Without a slash at its end. */
  endpoint: string;
  /** The folder of models--owner--name. */
  cache: string;
  token: string | undefined;
  /** Use what the cache holds and nothing else. */
  offline: boolean;
  /** How long a server may be silent. */
  timeoutMs: number;
  /** Before the second try; doubled for each further one. */
  retryMs: number;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";
const DEFAULT_TIMEOUT_S = 10;

/**
 * @param token In place of HF_TOKEN and of the token file.
 * @throws USAGE for an HF_ENDPOINT that is no address
 */
export function hubSettings(token?: string, env: NodeJS.ProcessEnv = process.env): HubSettings {
  const home =
    expand(env.HF_HOME, env) ??
    join(expand(env.XDG_CACHE_HOME, env) ?? join(homedir(), ".cache"), "huggingface");
  const cache = expand(env.HF_HUB_CACHE, env) ?? expand(env.HUGGINGFACE_HUB_CACHE, env) ?? join(home, "hub");
  return {
    endpoint: endpointOf(env.HF_ENDPOINT || DEFAULT_ENDPOINT),
    cache: resolve(cache),
    token: token ?? environmentToken(env, home),
    offline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
    timeoutMs: 1000 * (Number(env.HF_HUB_DOWNLOAD_TIMEOUT) || DEFAULT_TIMEOUT_S),
    retryMs: 500,
  };
}

function endpointOf(text: string): string {
  if (!/^https?:/.test(text) || !URL.canParse(text)) {
    throw new PeftTrainError("USAGE", `HF_ENDPOINT=${text}: expected an address such as ${DEFAULT_ENDPOINT}`);
  }
  return text.replace(/\/+$/, "");
}

function environmentToken(env: NodeJS.ProcessEnv, home: string): string | undefined {
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const given = (env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || "").trim();
  if (given !== "") return given;
  try {
    return readFileSync(expand(env.HF_TOKEN_PATH, env) ?? join(home, "token"), "utf8").trim() || undefined;
  } catch {
    return undefined; // nobody has logged in
  }
}

/** `~` and `$NAME`, which Python expands too. */
function expand(path: string | undefined, env: NodeJS.ProcessEnv): string | undefined {
  if (!path) return undefined;
  const named = path.replace(/\$(?:(\w+)|\{(\w+)\})/g, (whole, a, b) => env[a ?? b] ?? whole);
  return named.replace(/^~(?=\/|$)/, homedir());
}

function isTrue(text: string | undefined): boolean {
  return /^(1|on|yes|true)$/i.test(text ?? "");
}
