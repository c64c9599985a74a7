import { hubSettings } from "../hub/settings.js";
import type { Finding } from "./finding.js";

const PROXY_VARIABLES = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];
const HUB_VARIABLES = ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

/** The proxy variables that are set, without their passwords. */
export function proxyFinding(env: NodeJS.ProcessEnv): Finding {
  const set: Record<string, string> = {};
  for (const name of PROXY_VARIABLES.flatMap((upper) => [upper, upper.toLowerCase()])) {
    const value = env[name];
    if (value) set[name] = withoutPassword(value);
  }
  const found = Object.entries(set).map(([name, value]) => `${name}=${value}`);
  return {
    check: "proxy",
    status: "ok",
    found: found.length > 0 ? found.join(", ") : "no proxy variable is set",
    details: set,
  };
}

/** Where the Hub is and who asks; the token itself is never shown. */
export function hubFinding(env: NodeJS.ProcessEnv): Finding {
  try {
    const { endpoint, cache, token, offline } = hubSettings(undefined, env);
    const found = [
      withoutPassword(endpoint),
      token === undefined ? "no token" : "with a token",
      ...(offline ? ["offline: only what its cache holds"] : []),
    ].join(", ");
    const details = {
      endpoint: withoutPassword(endpoint),
      cache,
      token: token !== undefined,
      offline,
      variables: HUB_VARIABLES.filter((name) => env[name]),
    };
    return { check: "hub", status: offline ? "note" : "ok", found, details };
  } catch (error) {
    const { message } = error as Error;
    return { check: "hub", status: "problem", found: message, next: "unset HF_ENDPOINT" };
  }
}

function withoutPassword(address: string): string {
  return address.replace(/\/\/[^/@]*@/, "//***@");
}
