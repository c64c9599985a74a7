import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { HubSettings } from "../../lib/hub/settings.js";

export interface Asked {
  method: string;
  path: string;
  authorization: string | undefined;
  range: string | undefined;
  /** Whether the storage host was asked, not the Hub itself. */
  storage: boolean;
}

/** Answers in place of the server; false leaves the request to it. */
export type Fault = (asked: Asked, response: ServerResponse, content: Buffer | undefined) => boolean;

export interface Commit {
  repository: string;
  title: string;
  files: Map<string, Buffer>;
}

/**
 * The Hub's routes on the loopback, as far as they are used: what a model is and has, its files (large ones by a redirect to
 * a second host, as on the Hub), and commits.
 */
export class FakeHub implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly commits: Commit[] = [];
  readonly created: { name: string; organization: string; visibility?: string }[] = [];
  fault: Fault = () => false;
  role = "write";
  private readonly repositories = new Map<string, Map<string, Buffer>>();
  private readonly objects = new Map<string, Buffer>();
  private readonly servers: Server[] = [];
  endpoint = "";
  private storage = "";

  static async start(): Promise<FakeHub> {
    const hub = new FakeHub();
    hub.endpoint = await hub.listen(false);
    hub.storage = await hub.listen(true);
    return hub;
  }

  /** Files of more than 1,000 bytes, and every model.safetensors, are LFS files. */
  add(repository: string, files: Record<string, Buffer | string>): string {
    const content = new Map(Object.entries(files).map(([name, text]) => [name, Buffer.from(text)]));
    this.repositories.set(repository, content);
    return commitOf(content);
  }

  settings(cache: string, changes: Partial<HubSettings> = {}): HubSettings {
    return {
      endpoint: this.endpoint,
      cache,
      token: "hf_secret",
      offline: false,
      timeoutMs: 2000,
      retryMs: 5,
      ...changes,
    };
  }

  /** Environment of a command that talks to this Hub. */
  environment(home: string): NodeJS.ProcessEnv {
    return {
      HF_ENDPOINT: this.endpoint,
      HF_HOME: home,
      HF_TOKEN: "hf_secret",
      HF_HUB_CACHE: "",
      HF_HUB_OFFLINE: "",
    };
  }

  downloads(): Asked[] {
    return this.asked.filter(({ path, storage }) => storage || path.includes("/resolve/"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  private async listen(storage: boolean): Promise<string> {
    const server = createServer((request, response) => {
      this.handle(request, response, storage).catch((error) => response.destroy(error));
    });
    this.servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  private async handle(request: IncomingMessage, response: ServerResponse, storage: boolean): Promise<void> {
    const { pathname } = new URL(request.url ?? "", "http://hub");
    const { authorization, range } = request.headers;
    const asked = {
      method: request.method ?? "",
      path: decodeURIComponent(pathname),
      authorization,
      range,
      storage,
    };
    this.asked.push(asked);
    const body = await bytes(request);
    const [, id, sha, name] = /^\/(.+?)\/resolve\/([^/]+)\/(.+)$/.exec(asked.path) ?? [];
    const file = storage ? this.objects.get(asked.path.slice(1)) : this.files(id, sha)?.get(name ?? "");
    if (this.fault(asked, response, file)) return;
    if (storage && asked.method === "PUT") {
      this.objects.set(asked.path.slice(1), body);
      response.end();
    } else if (storage || file !== undefined) {
      if (file === undefined) {
        refuse(response, 404);
        return;
      }
      if (!storage && isLarge(name ?? "", file)) {
        const oid = hash(file);
        this.objects.set(oid, file);
        response
          .writeHead(302, {
            location: `${this.storage}/${oid}`,
            "x-repo-commit": sha,
            "x-linked-etag": `"${oid}"`,
            "x-linked-size": file.length,
          })
          .end();
      } else {
        if (!storage) response.setHeader("x-repo-commit", sha ?? "").setHeader("etag", `"${gitHash(file)}"`);
        sendPart(response, file, range);
      }
    } else this.api(asked, body, response);
  }

  private api({ method, path }: Asked, body: Buffer, response: ServerResponse): void {
    const json = (value: unknown): void => {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
    };
    const [, id, revision] = /^\/api\/models\/(.+?)\/revision\/(.+)$/.exec(path) ?? [];
    const [, treeId, treeSha] = /^\/api\/models\/(.+?)\/tree\/(.+)$/.exec(path) ?? [];
    const [, preuploadId] = /^\/api\/models\/(.+?)\/preupload\/main$/.exec(path) ?? [];
    const [, commitId] = /^\/api\/models\/(.+?)\/commit\/main$/.exec(path) ?? [];
    if (path === "/api/whoami-v2") {
      json({
        type: "user",
        name: "me",
        auth: { type: "access_token", accessToken: { displayName: "t", role: this.role } },
      });
    } else if (path === "/api/repos/create" && method === "POST") {
      const wanted = JSON.parse(String(body));
      if (this.created.some(({ name }) => name === wanted.name)) {
        refuse(response, 409);
        return;
      }
      this.created.push(wanted);
      json({ url: `${this.endpoint}/${wanted.organization}/${wanted.name}`, id: "1" });
    } else if (id !== undefined && revision !== undefined) {
      const files = this.repositories.get(id);
      if (files === undefined) {
        refuse(response, 404, "RepoNotFound");
        return;
      }
      const sha = commitOf(files);
      if (!["main", "HEAD", "v1", sha].includes(revision)) {
        refuse(response, 404, "RevisionNotFound");
        return;
      }
      json({
        _id: "1",
        id,
        sha,
        private: false,
        gated: false,
        likes: 0,
        downloads: 0,
        lastModified: "2026-01-01T00:00:00.000Z",
      });
    } else if (treeId !== undefined && treeSha !== undefined) {
      json([...(this.files(treeId, treeSha) ?? [])].map(([name, content]) => entry(name, content)));
    } else if (preuploadId !== undefined) {
      const { files } = JSON.parse(String(body)) as { files: { path: string }[] };
      json({
        files: files.map(({ path: name }) => ({
          path: name,
          uploadMode: /safetensors$/.test(name) ? "lfs" : "regular",
        })),
      });
    } else if (/\.git\/info\/lfs\/objects\/batch$/.test(path)) {
      const { objects } = JSON.parse(String(body)) as { objects: { oid: string; size: number }[] };
      json({
        transfer: "basic",
        objects: objects.map(({ oid, size }) => ({
          oid,
          size,
          actions: { upload: { href: `${this.storage}/${oid}` } },
        })),
      });
    } else if (commitId !== undefined) {
      json({
        commitOid: "c".repeat(40),
        commitUrl: `${this.endpoint}/${commitId}`,
        hookOutput: "",
        success: true,
        ...this.commit(commitId, body),
      });
    } else refuse(response, 404);
  }

  private commit(repository: string, body: Buffer): object {
    const lines = String(body)
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const files = new Map<string, Buffer>();
    for (const { key, value } of lines) {
      if (key === "file") files.set(value.path, Buffer.from(value.content, value.encoding));
      if (key === "lfsFile") files.set(value.path, this.objects.get(value.oid) as Buffer);
    }
    this.commits.push({ repository, title: lines[0].value.summary, files });
    return {};
  }

  private files(id: string | undefined, sha: string | undefined): Map<string, Buffer> | undefined {
    const files = this.repositories.get(id ?? "");
    return files !== undefined && commitOf(files) === sha ? files : undefined;
  }
}

export function refuse(
  response: ServerResponse,
  status: number,
  code?: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { ...(code && { "x-error-code": code }), ...headers }).end("<html>no</html>");
}

/** Content, or what is left of it behind the place that was asked for. */
export function sendPart(response: ServerResponse, content: Buffer, range: string | undefined): void {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const part = content.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    "content-length": part.length,
    ...(start > 0 && { "content-range": `bytes ${start}-${content.length - 1}/${content.length}` }),
  });
  response.end(part);
}

/** Sends so many bytes of the rest, and breaks the connection. */
export function cutAfter(
  response: ServerResponse,
  content: Buffer,
  range: string | undefined,
  count: number,
): void {
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  response.writeHead(start > 0 ? 206 : 200, {
    "content-length": content.length - start,
    ...(start > 0 && { "content-range": `bytes ${start}-${content.length - 1}/${content.length}` }),
  });
  response.write(content.subarray(start, start + count), () => setTimeout(() => response.destroy(), 20));
}

export function hash(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}

export function gitHash(content: Buffer): string {
  return createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
}

function isLarge(name: string, content: Buffer): boolean {
  return content.length > 1000 || name.endsWith(".safetensors");
}

function entry(name: string, content: Buffer): object {
  const common = { type: "file", path: name, size: content.length };
  if (!isLarge(name, content)) return { ...common, oid: gitHash(content) };
  const pointer = Buffer.from(`oid sha256:${hash(content)}`);
  return {
    ...common,
    oid: gitHash(pointer),
    lfs: { oid: hash(content), size: content.length, pointerSize: 130 },
  };
}

function commitOf(files: Map<string, Buffer>): string {
  const all = createHash("sha1");
  for (const [name, content] of files) all.update(name).update(content);
  return all.digest("hex");
}

async function bytes(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}
