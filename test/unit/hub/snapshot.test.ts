import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { dirname } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { HubAccess } from "../../../lib/hub/access.js";
import type { HubSettings } from "../../../lib/hub/settings.js";
import { Snapshot } from "../../../lib/hub/snapshot.js";
import { cutAfter, FakeHub, gitHash, hash, refuse, sendPart } from "../../support/fake-hub.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
const MODEL = { id: "me/model", revision: "main" };
const WEIGHTS = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251));
const CONFIG = Buffer.from('{"model_type": "bert"}');
let hub: FakeHub;
let commit: string;
let caches = 0;
let cache: string;

beforeAll(async () => {
  hub = await FakeHub.start();
  commit = hub.add("me/model", { "config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/a b.txt": "x" });
});
afterAll(() => hub[Symbol.asyncDispose]());
beforeEach(() => {
  cache = temporary.path(`cache${caches++}`);
  hub.asked.length = 0;
  hub.fault = () => false;
});

const repository = () => `${cache}/models--me--model`;
const blob = () => `${repository()}/blobs/${hash(WEIGHTS)}`;

async function fetchAll(changes: Partial<HubSettings> = {}, access: HubAccess = {}): Promise<Snapshot> {
  const snapshot = await Snapshot.open(MODEL, { settings: hub.settings(cache, changes), ...access });
  await snapshot.fetch(["config.json", "model.safetensors"], "me/model");
  return snapshot;
}

function failure(
  changes: Partial<HubSettings> = {},
  access: HubAccess = {},
): Promise<{ code: string; message: string; hint: string }> {
  return fetchAll(changes, access).then(
    () => expect.fail("nothing was refused"),
    (error) => error,
  );
}

/** Lets the first thing that is asked of the Hub be answered by `answer`, every time. */
function atOnce(answer: (response: ServerResponse, path: string) => void): void {
  hub.fault = ({ path }, response) => {
    if (!path.includes("/revision/")) return false;
    answer(response, path);
    return true;
  };
}

describe("what is fetched", () => {
  it("lies as Python's huggingface_hub lays it", async () => {
    const { path } = await fetchAll();
    expect(path).toBe(`${repository()}/snapshots/${commit}`);
    expect(readFileSync(`${path}/config.json`).equals(CONFIG)).toBe(true);
    expect(readFileSync(`${path}/model.safetensors`).equals(WEIGHTS)).toBe(true);
    expect(readlinkSync(`${path}/config.json`)).toBe(`../../blobs/${gitHash(CONFIG)}`);
    expect(readlinkSync(`${path}/model.safetensors`)).toBe(`../../blobs/${hash(WEIGHTS)}`);
    expect(readFileSync(`${repository()}/refs/main`, "utf8")).toBe(commit);
    expect(readdirSync(`${repository()}/blobs`).sort()).toEqual([gitHash(CONFIG), hash(WEIGHTS)].sort());
  });

  it("is not fetched again, and is enough without a network", async () => {
    await fetchAll();
    hub.asked.length = 0;
    await fetchAll();
    expect(hub.downloads()).toEqual([]);
    hub.asked.length = 0;
    const { path, names } = await fetchAll({ offline: true });
    expect(readFileSync(`${path}/config.json`).equals(CONFIG)).toBe(true);
    expect([...names].sort()).toEqual(["config.json", "model.safetensors"]);
    expect(hub.asked).toEqual([]);
  });

  it("takes a file in folders whose name has to be escaped", async () => {
    const snapshot = await fetchAll();
    await snapshot.fetch(["sub/a b.txt"], "me/model");
    expect(readFileSync(`${snapshot.path}/sub/a b.txt`, "utf8")).toBe("x");
    expect(readlinkSync(`${snapshot.path}/sub/a b.txt`)).toMatch(/^\.\.\/\.\.\/\.\.\/blobs\//);
  });

  it("is told of as it arrives, from what was there on", async () => {
    const seen: [number, number][] = [];
    await fetchAll({}, { onProgress: (_, done, total) => void seen.push([done, total]) });
    expect(seen.at(-1)).toEqual([CONFIG.length + WEIGHTS.length, CONFIG.length + WEIGHTS.length]);
    expect(seen.every(([done], i) => i === 0 || done >= (seen[i - 1]?.[0] ?? 0))).toBe(true);
  });

  it("keeps the answer that a file is not there", async () => {
    const snapshot = await fetchAll();
    expect(await snapshot.isKnown("modules.json")).toBe(true);
    const offline = await fetchAll({ offline: true });
    expect(await offline.isKnown("modules.json")).toBe(true);
    expect(await offline.isKnown("1_Pooling/config.json")).toBe(false);
    expect(readdirSync(`${repository()}/.no_exist/${commit}`)).toEqual(["modules.json"]);
  });

  it("is downloaded once by two that want it at a time", async () => {
    await Promise.all([fetchAll(), fetchAll()]);
    expect(hub.downloads().filter(({ storage }) => storage)).toHaveLength(1);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });
});

describe("the token", () => {
  it("goes to the Hub and to no other host", async () => {
    await fetchAll();
    const [own, others] = [hub.asked.filter((one) => !one.storage), hub.asked.filter((one) => one.storage)];
    expect(new Set(own.map(({ authorization }) => authorization))).toEqual(new Set(["Bearer hf_secret"]));
    expect(others.length).toBeGreaterThan(0);
    expect(others.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("is in no message", async () => {
    atOnce((response) => refuse(response, 403));
    const error = await failure();
    expect(error).toMatchObject({
      code: "HUB_ACCESS",
      message: expect.stringMatching(/refuses the token for me\/model \(HTTP 403\)/),
    });
    expect(`${error.message} ${error.hint} ${JSON.stringify(error)}`).not.toContain("hf_secret");
  });
});

describe("a refusal is told by what it is", () => {
  const cases: [
    title: string,
    status: number,
    code: string | undefined,
    token: string | undefined,
    expected: object,
  ][] = [
    [
      "no such repository",
      404,
      "RepoNotFound",
      "hf_secret",
      { code: "HUB_NOT_FOUND", message: /has no me\/model, or hides it/ },
    ],
    ["hidden without a token", 401, "RepoNotFound", undefined, { code: "HUB_NOT_FOUND", hint: /HF_TOKEN/ }],
    [
      "no such revision",
      404,
      "RevisionNotFound",
      "hf_secret",
      { code: "HUB_NOT_FOUND", message: /no such branch, tag or commit/ },
    ],
    [
      "gated",
      403,
      "GatedRepo",
      "hf_secret",
      { code: "HUB_ACCESS", message: /wants its terms accepted for me\/model/ },
    ],
    ["without a token", 401, undefined, undefined, { code: "HUB_ACCESS", message: /asks for a token/ }],
    ["something new", 418, undefined, "hf_secret", { code: "DOWNLOAD_FAILED", message: /HTTP 418/ }],
  ];
  for (const [title, status, code, token, expected] of cases) {
    it(title, async () => {
      atOnce((response) => refuse(response, status, code));
      const error = await failure({ token });
      for (const [key, value] of Object.entries(expected)) {
        expect(error[key as "message"]).toEqual(
          value instanceof RegExp ? expect.stringMatching(value) : value,
        );
      }
      expect(hub.asked).toHaveLength(1);
    });
  }
});

/** Lets the first `count` downloads of the weights be answered by `answer`. */
function firstDownloads(count: number, answer: (...args: Parameters<FakeHub["fault"]>) => void): void {
  let left = count;
  hub.fault = (asked, response, content) => {
    if (!asked.storage || left-- <= 0) return false;
    answer(asked, response, content);
    return true;
  };
}

describe("faults on the way", () => {
  it("429 is waited out as the server says, and told of where it takes long", async () => {
    let refused = false;
    hub.fault = ({ path }, response) => {
      if (refused || !path.includes("/revision/")) return false;
      refused = true;
      refuse(response, 429, undefined, { "retry-after": "1" });
      return true;
    };
    const startedAt = performance.now();
    await fetchAll();
    expect(performance.now() - startedAt).toBeGreaterThan(990);
  });

  it("a wait of an hour is left to the user", async () => {
    atOnce((response) => refuse(response, 429, undefined, { "retry-after": "3600" }));
    expect(await failure()).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/HTTP 429/),
    });
    expect(hub.asked).toHaveLength(1);
  });

  it("500 and 503 pass", async () => {
    firstDownloads(2, (_, response) => refuse(response, hub.asked.length % 2 ? 500 : 503));
    await fetchAll();
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("500 for good is told after five tries", async () => {
    atOnce((response) => refuse(response, 500));
    expect(await failure()).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/HTTP 500/),
    });
    expect(hub.asked).toHaveLength(5);
  });

  it("a connection that is cut goes on where it stopped", async () => {
    firstDownloads(3, ({ range }, response, content) => cutAfter(response, content as Buffer, range, 70_000));
    await fetchAll();
    const starts = hub.asked
      .filter(({ storage }) => storage)
      .map(({ range }) => Number(/\d+/.exec(range ?? "0")?.[0]));
    expect(starts[0]).toBe(0);
    expect(starts.slice(1).every((start, i) => start > (starts[i] ?? 0))).toBe(true);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("a part that an earlier process left is gone on from", async () => {
    mkdirSync(dirname(blob()), { recursive: true });
    writeFileSync(`${blob()}.peft-train.incomplete`, WEIGHTS.subarray(0, 123_456));
    await fetchAll();
    expect(hub.asked.filter(({ storage }) => storage).map(({ range }) => range)).toEqual(["bytes=123456-"]);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("a wrong part is found out by its hash and fetched again", async () => {
    mkdirSync(dirname(blob()), { recursive: true });
    writeFileSync(`${blob()}.peft-train.incomplete`, Buffer.alloc(123_456));
    await fetchAll();
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("a server that knows no parts starts over", async () => {
    firstDownloads(1, ({ range }, response, content) => cutAfter(response, content as Buffer, range, 70_000));
    const fault = hub.fault;
    hub.fault = (asked, response, content) => {
      if (fault(asked, response, content)) return true;
      if (!asked.storage) return false;
      sendPart(response, content as Buffer, undefined);
      return true;
    };
    await fetchAll();
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("416 for a part starts over", async () => {
    mkdirSync(dirname(blob()), { recursive: true });
    writeFileSync(`${blob()}.peft-train.incomplete`, WEIGHTS.subarray(0, 99));
    firstDownloads(1, (_, response) => refuse(response, 416));
    await fetchAll();
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("content with a wrong hash is fetched twice, refused and not kept", async () => {
    const other = Buffer.from(WEIGHTS);
    other[5] = 255;
    firstDownloads(9, ({ range }, response) => sendPart(response, other, range));
    expect(await failure()).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/SHA-256 .*; the Hub says/),
    });
    expect(hub.asked.filter(({ storage }) => storage)).toHaveLength(2);
    expect(readdirSync(`${repository()}/blobs`)).toEqual([gitHash(CONFIG)]);
    expect(readdirSync(`${repository()}/snapshots/${commit}`)).toEqual(["config.json"]);
  });

  it("a page in place of the file is refused", async () => {
    firstDownloads(9, (_, response) => sendPart(response, Buffer.alloc(WEIGHTS.length + 1), undefined));
    expect(await failure()).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/longer than the 300000 bytes/),
    });
  });

  it("a server that falls silent is left after the time-out, and gone on with", async () => {
    firstDownloads(1, (_, response, content) => {
      response.writeHead(200, { "content-length": WEIGHTS.length });
      response.write((content as Buffer).subarray(0, 50_000));
    });
    await fetchAll({ timeoutMs: 200 });
    expect(hub.asked.filter(({ storage }) => storage)[1]?.range).toMatch(/^bytes=\d+-$/);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("a slow server that goes on is waited for", async () => {
    firstDownloads(1, async (_, response, content) => {
      response.writeHead(200, { "content-length": WEIGHTS.length });
      for (let at = 0; at < WEIGHTS.length; at += 50_000) {
        response.write((content as Buffer).subarray(at, at + 50_000));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      response.end();
    });
    await fetchAll({ timeoutMs: 300 });
    expect(hub.asked.filter(({ storage }) => storage)).toHaveLength(1);
  });

  it("redirects in a circle end", async () => {
    atOnce((response, path) => response.writeHead(302, { location: path }).end());
    expect(await failure()).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/circle/),
    });
  });

  it("an answer that is not the Hub's is told as one", async () => {
    atOnce((response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>"));
    expect(await failure()).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/does not answer as the Hub does/),
    });
  });

  it("a Hub that is not there is as good as none where the cache has the model", async () => {
    const notes: string[] = [];
    const gone = { endpoint: "http://127.0.0.1:9" };
    expect(await failure(gone)).toMatchObject({
      code: "DOWNLOAD_FAILED",
      message: expect.stringMatching(/127\.0\.0\.1:9 does not answer/),
    });
    await fetchAll();
    await fetchAll(gone, { onNote: (text) => notes.push(text) });
    expect(notes).toEqual([
      expect.stringMatching(/does not answer.*; using me\/model as it is in the cache$/),
    ]);
  });

  it("a stop keeps the part, and the next run goes on from it", async () => {
    const stop = new AbortController();
    firstDownloads(1, (_, response, content) => {
      response.writeHead(200, { "content-length": WEIGHTS.length });
      response.write((content as Buffer).subarray(0, 90_000));
    });
    const onProgress = (_: string, done: number) => {
      if (done > CONFIG.length + 50_000) stop.abort();
    };
    expect(await failure({}, { signal: stop.signal, onProgress })).toMatchObject({ code: "ABORTED" });
    await fetchAll();
    expect(hub.asked.filter(({ storage }) => storage)[1]?.range).toMatch(/^bytes=\d{5,}-$/);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  it("offline without the model says so", async () => {
    expect(await failure({ offline: true })).toMatchObject({
      code: "HUB_NOT_FOUND",
      message: expect.stringMatching(/HF_HUB_OFFLINE is set, and .* does not hold me\/model$/),
    });
    expect(hub.asked).toEqual([]);
  });
});
