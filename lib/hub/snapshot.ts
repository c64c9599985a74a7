import { PeftTrainError } from "../errors.js";
import { type HubAccess, settingsOf } from "./access.js";
import { RepositoryCache } from "./cache.js";
import { downloadBlob, type RemoteFile } from "./download.js";
import { hubFetch } from "./fetch.js";
import { type Repository, repositoryText } from "./repository.js";

/** The files of a repository at one commit: of the Hub, or of the cache where the Hub is not to be asked. */
export class Snapshot {
  private constructor(
    private readonly cache: RepositoryCache,
    readonly commit: string,
    /** Undefined where the cache is all there is. */
    private readonly remote: ReadonlyMap<string, RemoteFile> | undefined,
    /** Every file that can be had. */
    readonly names: readonly string[],
    private readonly access: HubAccess,
  ) {}

  /**
   * Finds a repository. A Hub that does not answer is as good as none where the cache knows the revision.
   * @throws HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED, ABORTED
   */
  static async open(repository: Repository, access: HubAccess): Promise<Snapshot> {
    const { cache: folder, offline } = settingsOf(access);
    const cache = new RepositoryCache(folder, repository.id);
    if (offline) return Snapshot.cached(repository, cache, access, offlineMiss(repository, folder));
    try {
      const { commit, files } = await list(repository, access);
      await cache.noteCommit(repository.revision, commit);
      return new Snapshot(cache, commit, files, [...files.keys()], access);
    } catch (error) {
      if (!(error instanceof PeftTrainError) || error.code !== "DOWNLOAD_FAILED") throw error;
      const snapshot = await Snapshot.cached(repository, cache, access, error);
      access.onNote?.(`${error.message}; using ${repositoryText(repository)} as it is in the cache`);
      return snapshot;
    }
  }

  private static async cached(
    repository: Repository,
    cache: RepositoryCache,
    access: HubAccess,
    otherwise: PeftTrainError,
  ): Promise<Snapshot> {
    const commit = await cache.commitOf(repository.revision);
    const names = commit === undefined ? [] : await cache.list(commit);
    if (commit === undefined || names.length === 0) throw otherwise;
    return new Snapshot(cache, commit, undefined, names, access);
  }

  /** Folder of the files that were fetched. */
  get path(): string {
    return this.cache.snapshot(this.commit);
  }

  /** Brings files into the folder, as far as they are not there. `label` is what progress is told of. */
  async fetch(names: readonly string[], label: string): Promise<void> {
    const missing: RemoteFile[] = [];
    for (const name of names) {
      const file = this.remote?.get(name);
      if (file !== undefined && (await this.cache.sizeOf(this.commit, name)) !== file.size)
        missing.push(file);
    }
    const total = missing.reduce((sum, { size }) => sum + size, 0);
    let done = 0;
    for (const file of missing) {
      await downloadBlob(this.cache, file, this.access, (here) => {
        this.access.onProgress?.(label, done + here, total);
      });
      done += file.size;
      await this.cache.link(this.commit, file.name, file.etag);
    }
  }

  /**
   * Whether a file is known to be there or not, and not merely never asked for; the answer is kept for when there is no Hub.
   */
  async isKnown(name: string): Promise<boolean> {
    if (this.names.includes(name)) return true;
    if (this.remote === undefined) return this.cache.isKnownMissing(this.commit, name);
    await this.cache.noteMissing(this.commit, name);
    return true;
  }
}

async function list(
  { id, revision }: Repository,
  access: HubAccess,
): Promise<{ commit: string; files: Map<string, RemoteFile> }> {
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const { endpoint } = settingsOf(access);
  const shared = { hubUrl: endpoint, fetch: hubFetch(access) };
  try {
    const { sha } = await modelInfo({ ...shared, name: id, revision, additionalFields: ["sha"] });
    if (!/^[0-9a-f]{40}$/.test(String(sha))) throw new TypeError("no commit");
    const files = new Map<string, RemoteFile>();
    for await (const entry of listFiles({ ...shared, repo: id, revision: sha, recursive: true })) {
      if (entry.type !== "file") continue;
      const name = entry.path;
      const { oid: etag = "", size } = entry.lfs ?? entry;
      // It will be the name of a file here.
      if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(etag) || !Number.isSafeInteger(size)) {
        throw new TypeError(`a strange entry for ${name}`);
      }
      const url = `${endpoint}/${id}/resolve/${sha}/${name.split("/").map(encodeURIComponent).join("/")}`;
      files.set(name, { name, url, size, etag, isLfs: entry.lfs !== undefined });
    }
    return { commit: sha, files };
  } catch (cause) {
    if (cause instanceof PeftTrainError) throw cause;
    const { host } = new URL(endpoint);
    throw new PeftTrainError(
      "DOWNLOAD_FAILED",
      `${host} does not answer as the Hub does: ${(cause as Error).message}`,
      {
        hint: "Check HF_ENDPOINT, and for a proxy that answers in the Hub's place.",
        cause,
      },
    );
  }
}

function offlineMiss(repository: Repository, folder: string): PeftTrainError {
  return new PeftTrainError(
    "HUB_NOT_FOUND",
    `HF_HUB_OFFLINE is set, and ${folder} does not hold ${repositoryText(repository)}`,
    { hint: "Leave HF_HUB_OFFLINE out once, with a network, or set HF_HOME to the cache that holds it." },
  );
}
