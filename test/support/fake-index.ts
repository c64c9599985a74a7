import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { cutAfter, refuse, sendPart } from "./fake-hub.js";
import type { FakeWheel } from "./wheel.js";

export interface IndexOptions {
  /** Default: JSON where it is asked for, as on PyPI. "html" is what most mirrors have; "bare" without hashes and sizes. */
  pages?: "json" | "html" | "bare";
  /** Answers for a wheel in place of the server; false leaves it to it. */
  fault?: (response: ServerResponse, wheel: FakeWheel, range: string | undefined) => boolean;
}

/** A package index on the loopback, with one page a project (PEP 503, 691). */
export class FakeIndex implements AsyncDisposable {
  readonly asked: {
    method: string;
    path: string;
    range: string | undefined;
    authorization: string | undefined;
  }[] = [];

  private constructor(
    private readonly server: Server,
    readonly address: string,
  ) {}

  static async start(wheels: readonly FakeWheel[], options: IndexOptions = {}): Promise<FakeIndex> {
    const { pages = "json", fault = () => false } = options;
    const server = createServer((request, response) => {
      const { method = "", url = "" } = request;
      const { range, authorization } = request.headers;
      index.asked.push({ method, path: url, range, authorization });
      const project = /^\/simple\/([^/]+)\/$/.exec(url)?.[1];
      const wheel = wheels.find(({ file }) => url === `/files/${file}`);
      if (project !== undefined)
        sendPage(
          response,
          wheels.filter((each) => each.project === project),
          pages,
        );
      else if (wheel === undefined) refuse(response, 404);
      else if (method === "HEAD") response.writeHead(200, { "content-length": wheel.content.length }).end();
      else if (!fault(response, wheel, range)) sendPart(response, wheel.content, range);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const index: FakeIndex = new FakeIndex(server, `http://127.0.0.1:${portOf(server)}/simple`);
    return index;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

/** Breaks the first connections for a wheel after so many bytes. */
export function cutting(times: number, bytes: number): NonNullable<IndexOptions["fault"]> {
  let left = times;
  return (response, wheel, range) => {
    if (left-- <= 0) return false;
    cutAfter(response, wheel.content, range, bytes);
    return true;
  };
}

function sendPage(
  response: ServerResponse,
  wheels: readonly FakeWheel[],
  pages: IndexOptions["pages"],
): void {
  if (wheels.length === 0) {
    refuse(response, 404);
    return;
  }
  if (pages === "json") {
    response.writeHead(200, { "content-type": "application/vnd.pypi.simple.v1+json" });
    const files = wheels.map(({ file, sha256, content }) => ({
      filename: file,
      url: `../../files/${file}`,
      hashes: { sha256 },
      size: content.length,
    }));
    response.end(JSON.stringify({ files }));
    return;
  }
  response.writeHead(200, { "content-type": "text/html" });
  const links = wheels.map(({ file, sha256 }) => {
    const hash = pages === "bare" ? "" : `#sha256=${sha256}`;
    return `<a href="../../files/${file}${hash}" data-requires-python="&gt;=3.10">${file}</a><br/>`;
  });
  response.end(`<!DOCTYPE html><html><body>${links.join("\n")}</body></html>`);
}

/** A proxy on the loopback: forwards plain requests and opens tunnels, and counts both. */
export class FakeProxy implements AsyncDisposable {
  requests = 0;

  private constructor(
    private readonly server: Server,
    readonly address: string,
  ) {}

  static async start(): Promise<FakeProxy> {
    const server = createServer((request, response) => void proxy.forward(request, response));
    server.on("connect", (request, client) => {
      proxy.requests++;
      const { hostname, port } = new URL(`http://${request.url}`);
      const upstream = connect(Number(port), hostname, () => {
        client.write("HTTP/1.1 200 OK\r\n\r\n");
        upstream.pipe(client).pipe(upstream);
      });
      for (const [one, other] of [
        [upstream, client],
        [client, upstream],
      ] as const)
        one.on("error", () => other.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const proxy: FakeProxy = new FakeProxy(server, `http://127.0.0.1:${portOf(server)}`);
    return proxy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
  }

  private async forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests++;
    const { host: _, "proxy-connection": __, connection: ___, ...headers } = request.headers;
    const answer = await fetch(request.url as string, {
      method: request.method ?? "GET",
      headers: headers as Record<string, string>,
    });
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    response.end(Buffer.from(await answer.arrayBuffer()));
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
