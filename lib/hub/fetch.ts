import { patientFetch } from "../transfer/request.js";
import { type HubAccess, settingsOf } from "./access.js";
import { refusal, stopped, unreachable } from "./errors.js";

/**
 * The `fetch` for everything that is asked of the Hub, by `@huggingface/hub` too, which neither tries again nor watches
 * the clock. Adds the token, and to no other host than the Hub's own.
 *
 * @throws DOWNLOAD_FAILED, HUB_NOT_FOUND, HUB_ACCESS, ABORTED. Only a conflict (409) and a range that is not there (416) come
 * back as responses that are not ok.
 */
export function hubFetch(access: HubAccess): typeof fetch {
  const settings = settingsOf(access);
  return patientFetch({
    timeoutMs: settings.timeoutMs,
    retryMs: settings.retryMs,
    env: process.env,
    signal: access.signal,
    onNote: access.onNote,
    authorize(url, headers) {
      const isHub = new URL(url).origin === new URL(settings.endpoint).origin;
      if (isHub && settings.token !== undefined) headers.set("authorization", `Bearer ${settings.token}`);
      else headers.delete("authorization");
    },
    refusal: (response, url) => refusal(response, url, settings),
    unreachable,
    stopped: (what) => stopped(what === "asking" ? "asking the Hub" : "waiting for the Hub"),
  });
}
