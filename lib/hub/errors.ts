import { PeftTrainError } from "../errors.js";
import type { HubSettings } from "./settings.js";

/** A refusal of the Hub, as one of our errors. */
export function refusal(response: Response, url: string, settings: HubSettings): PeftTrainError {
  const { status } = response;
  const { host } = new URL(settings.endpoint);
  const code = response.headers.get("x-error-code") ?? "";
  const about = subject(url, settings.endpoint);
  const gated = code === "GatedRepo";
  // Without a token the Hub does not tell a private repository from none.
  if (code === "RepoNotFound" || (status === 404 && code === "")) {
    return new PeftTrainError("HUB_NOT_FOUND", `${host} has no ${about}, or hides it (HTTP ${status})`, {
      hint:
        settings.token === undefined
          ? `Check the name. ${LOG_IN}`
          : "Check the name, and what the token may read.",
    });
  }
  if (status === 404) {
    const what = code === "RevisionNotFound" ? "no such branch, tag or commit" : "no such file";
    return new PeftTrainError("HUB_NOT_FOUND", `${host}: ${about}: ${what} (HTTP 404)`, {
      hint: `See ${settings.endpoint}/${about.replace(/@.*/, "")}`,
    });
  }
  if (gated || status === 401 || status === 403) {
    const why = gated
      ? "wants its terms accepted"
      : settings.token === undefined
        ? "asks for a token"
        : "refuses the token";
    return new PeftTrainError("HUB_ACCESS", `${host} ${why} for ${about} (HTTP ${status})`, {
      hint: gated
        ? `Accept them on ${settings.endpoint}/${about.replace(/@.*/, "")} first. ${LOG_IN}`
        : LOG_IN,
    });
  }
  return new PeftTrainError("DOWNLOAD_FAILED", `${host} answers HTTP ${status} for ${about}`, {
    hint: "Try again later; what is there already is kept.",
  });
}

const LOG_IN = "Set HF_TOKEN to a token that may, or log in with: hf auth login.";

/** A server that did not answer, or not to the end. */
export function unreachable(url: string, cause: unknown): PeftTrainError {
  return new PeftTrainError("DOWNLOAD_FAILED", `${new URL(url).host} does not answer: ${reason(cause)}`, {
    hint: "Check the network and HF_ENDPOINT, then start again: what is there already is kept.",
    cause,
  });
}

export function stopped(what: string): PeftTrainError {
  return new PeftTrainError("ABORTED", `stopped while ${what}; what is there already is kept`, {
    hint: "Start again to go on from there.",
  });
}

/** The words of the innermost error, which fetch wraps. */
function reason(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const { code, message } = inner as NodeJS.ErrnoException;
  return message || code || String(inner);
}

/** What a route of the Hub is about: owner/name, with the revision where there is one. */
function subject(url: string, endpoint: string): string {
  const path = decodeURIComponent(
    new URL(url).pathname.slice(new URL(endpoint).pathname.replace(/\/$/, "").length),
  );
  if (path === "/api/whoami-v2") return "your account";
  if (path === "/api/repos/create") return "a new repository";
  const api = /^\/api\/models\/(.+?)(?:\/(?:revision|tree|preupload|commit)\/([^/]+).*)?$/.exec(path);
  const file = /^\/(.+?)\/resolve\/([^/]+)\/(.+)$/.exec(path);
  const [, id = path.replace(/^\/|\.git\/.*/g, ""), revision] = api ?? file ?? [];
  return revision === undefined || revision === "main" ? id : `${id}@${revision}`;
}
