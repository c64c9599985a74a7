import { PeftTrainError } from "../errors.js";
import { type HubAccess, settingsOf } from "./access.js";
import { hubFetch } from "./fetch.js";

export interface Upload {
  /** `owner/name`. */
  repository: string;
  private: boolean;
  /** By their name in the repository. */
  files: ReadonlyMap<string, Blob>;
  title: string;
}

export interface Uploaded {
  url: string;
  commit: string;
}

/** Whoever the token belongs to. @throws HUB_ACCESS without a token, or with one that may only read */
export async function uploadingUser(access: HubAccess): Promise<string> {
  const { endpoint, token, offline } = settingsOf(access);
  const { host } = new URL(endpoint);
  if (offline) {
    throw new PeftTrainError("USAGE", "HF_HUB_OFFLINE is set, and --push_to_hub asks for an upload", {
      hint: "Leave out one of them.",
    });
  }
  if (token === undefined) {
    throw new PeftTrainError("HUB_ACCESS", `--push_to_hub needs a token for ${host}`, {
      hint: "Give --hub_token, set HF_TOKEN, or log in with: hf auth login.",
    });
  }
  const { whoAmI } = await import("@huggingface/hub");
  const { name, auth } = await whoAmI({
    accessToken: LIBRARY_TOKEN,
    hubUrl: endpoint,
    fetch: hubFetch(access),
  });
  if (auth?.accessToken?.role === "read") {
    throw new PeftTrainError("HUB_ACCESS", `the token of ${name} may only read from ${host}`, {
      hint: `Make one that may write: ${endpoint}/settings/tokens`,
    });
  }
  return name;
}

/** Makes the repository if it is not there, and puts the files into it as one commit. @throws UPLOAD_FAILED, HUB_ACCESS */
export async function uploadFiles(upload: Upload, access: HubAccess): Promise<Uploaded> {
  const { endpoint } = settingsOf(access);
  const hub = await import("@huggingface/hub");
  const shared = {
    repo: upload.repository,
    accessToken: LIBRARY_TOKEN,
    hubUrl: endpoint,
    fetch: hubFetch(access),
  };
  try {
    await hub
      .createRepo({ ...shared, ...(upload.private && { visibility: "private" }) })
      .catch((error: unknown) => {
        if (!(error instanceof hub.HubApiError) || error.statusCode !== 409) throw error; // it is there
      });
    const output = await hub.uploadFiles({
      ...shared,
      files: [...upload.files].map(([path, content]) => ({ path, content })),
      commitTitle: upload.title,
      ...(access.signal && { abortSignal: access.signal }),
      useXet: false, // its second protocol, with hosts of its own, gains nothing for a few megabytes
    });
    return { url: `${endpoint}/${upload.repository}`, commit: output?.commit.oid ?? "" };
  } catch (cause) {
    if (cause instanceof PeftTrainError && cause.code !== "DOWNLOAD_FAILED") throw cause;
    throw new PeftTrainError("UPLOAD_FAILED", `${upload.repository}: ${(cause as Error).message}`, { cause });
  }
}

/** The library refuses to go on without a token of the usual form; `hubFetch` puts the real one in its place. */
const LIBRARY_TOKEN = "hf_set_by_hubFetch";
