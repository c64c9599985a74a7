import { request as httpRequest } from "node:http";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeAdapters } from "../../bench/make-adapters.mjs";
import { startService } from "../../bench/service-process.mjs";
import { Encoder } from "../../lib/encoder.js";
import { temporaryFolder } from "../support/temporary-folder.js";

// examples/service on the encoder that comes along, in a process of its own, over the loopback.
const temporary = temporaryFolder();
const data = (name: string) => fileURLToPath(new URL(`../../data/${name}`, import.meta.url));
const NAMES = ["red", "green", "blue"];
const TEXTS = ["how do I swim", "what is the capital of France", "join WAV files"];
let adapters: Map<string, string>;
let service: Awaited<ReturnType<typeof startService>>;
let encoder: Encoder;

const post = (path: string, body: unknown, base = service.url) =>
  fetch(base + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
const answer = async (path: string, body: unknown) => (await post(path, body)).json() as Promise<never>;
const plain = (rows: Float32Array[]) => rows.map((row) => Array.from(row));

beforeAll(async () => {
  adapters = await makeAdapters(data("encoder"), data("pairs/train.csv"), temporary.path(), NAMES);
  service = await startService(["--threads=1"], { adapters });
  encoder = await Encoder.load(data("encoder"), { threads: 1 });
  for (const [name, folder] of adapters) await encoder.addAdapter(name, folder);
}, 180_000);

afterAll(async () => {
  await encoder?.close();
  expect(await service?.stop()).toMatchObject({ code: 0, signal: null, stderr: "" });
});

describe("the service", () => {
  it("embeds texts with the adapter that is named, as the library does, and with none", async () => {
    const seen = new Set<string>();
    for (const adapter of [...NAMES, false]) {
      const found: { vectors: number[][]; dimension: number } = await answer("/embed", {
        texts: TEXTS,
        adapter,
      });
      const expected = await encoder.encode(TEXTS, { adapter });
      expect(found).toMatchObject({ adapter, dimension: 128 });
      expect(found.vectors.map((row) => Float32Array.from(row))).toEqual(expected);
      seen.add(JSON.stringify(found.vectors[0]));
    }
    expect(seen.size).toBe(4);
    const raw: { vectors: number[][] } = await answer("/embed", {
      texts: ["a"],
      prefix: "q: ",
      normalize: false,
    });
    const [expected] = await encoder.encode(["a"], { adapter: false, prefix: "q: ", normalize: false });
    expect(Float32Array.from(raw.vectors[0] as number[])).toEqual(expected);
  });

  it("gives cosines of pairs", async () => {
    const found: { cosines: number[] } = await answer("/similarity", {
      a: TEXTS,
      b: TEXTS.toReversed(),
      adapter: "red",
    });
    const expected = await encoder.similarity(TEXTS, TEXTS.toReversed(), { adapter: "red" });
    expect(found.cosines).toEqual(Array.from(expected));
    const uneven = await post("/similarity", { a: TEXTS, b: ["a"] });
    expect([uneven.status, await uneven.json()]).toMatchObject([400, { error: { code: "USAGE" } }]);
  });

  it("speaks as OpenAI's API does, in floats and in base64", async () => {
    for (const [model, adapter] of [
      ...NAMES.map((name) => [name, name] as const),
      ["base", false] as const,
    ]) {
      const expected = await encoder.encode(TEXTS, { adapter });
      const tokens = (await encoder.countTokens(TEXTS, { adapter })).reduce((sum, count) => sum + count, 0);
      const floats = await answer("/v1/embeddings", { model, input: TEXTS });
      expect(floats).toEqual({
        object: "list",
        data: expected.map((_, index) => ({ object: "embedding", index, embedding: expect.anything() })),
        model,
        usage: { prompt_tokens: tokens, total_tokens: tokens },
      });
      const packed: { data: { embedding: string }[] } = await answer("/v1/embeddings", {
        model,
        input: TEXTS,
        encoding_format: "base64",
      });
      for (const [i, { embedding }] of packed.data.entries()) {
        const bytes = Buffer.from(embedding, "base64");
        const found = Array.from({ length: bytes.length / 4 }, (_, j) => bytes.readFloatLE(4 * j));
        expect(found).toEqual(Array.from(expected[i] as Float32Array));
      }
    }
    const one: { data: unknown[] } = await answer("/v1/embeddings", {
      model: "red",
      input: "a",
      dimensions: 128,
    });
    expect(one.data).toHaveLength(1);
    const models = (await (await fetch(`${service.url}/v1/models`)).json()) as { data: { id: string }[] };
    expect(models.data.map(({ id }) => id)).toEqual(["base", ...NAMES]);
  });

  it.each([
    ["no such path", "/nowhere", {}, 404],
    ["no JSON", "/embed", "{", 400],
    ["no texts", "/embed", { texts: [] }, 400],
    ["a text that is none", "/embed", { texts: [1] }, 400],
    ["another field", "/embed", { texts: ["a"], adaptor: "red" }, 400],
    ["no such adapter", "/embed", { texts: ["a"], adapter: "rde" }, 400],
    ["more texts than one request may have", "/embed", { texts: new Array(2049).fill("a") }, 400],
    ["a body that is too large", "/embed", { texts: new Array(40).fill("a".repeat(90_000)) }, 413],
    ["no such model", "/v1/embeddings", { model: "grey", input: "a" }, 404],
    ["token ids", "/v1/embeddings", { model: "red", input: [1, 2] }, 400],
    ["other dimensions", "/v1/embeddings", { model: "red", input: "a", dimensions: 64 }, 400],
  ] as const)("refuses %s", async (_, path, body, status) => {
    const found = await post(path, body);
    expect(found.status).toBe(status);
    if (path === "/nowhere") return;
    const { error } = (await found.json()) as { error: { message: string; code: string } };
    expect(error).toMatchObject({ message: expect.any(String), code: expect.any(String) });
    if (path.startsWith("/v1"))
      expect(error).toMatchObject({ type: "invalid_request_error", param: expect.toSatisfy(() => true) });
  });

  it("mixes up nothing between adapters and texts under load", async () => {
    const texts = Array.from({ length: 97 }, (_, i) => `what is number ${i} good for`);
    const expected = new Map(
      await Promise.all(
        NAMES.map(async (name) => [name, plain(await encoder.encode(texts, { adapter: name }))] as const),
      ),
    );
    const one = async (i: number): Promise<void> => {
      const [adapter, place] = [NAMES[i % 3] as string, i % texts.length];
      const { vectors }: { vectors: number[][] } = await answer("/embed", { texts: [texts[place]], adapter });
      expect(Array.from(Float32Array.from(vectors[0] as number[]))).toEqual(expected.get(adapter)?.[place]);
    };
    await Promise.all(
      Array.from({ length: 30 }, async (_, c) => {
        for (let i = c; i < 600; i += 30) await one(i);
      }),
    );
  });

  it("tells health, readiness and metrics", async () => {
    expect(await (await fetch(`${service.url}/health`)).json()).toEqual({ status: "ok" });
    expect(await (await fetch(`${service.url}/ready`)).json()).toMatchObject({
      status: "ready",
      adapters: NAMES,
    });
    const text = await (await fetch(`${service.url}/metrics`)).text();
    expect(text).toMatch(/^embedded_texts_total\{adapter="red"\} [1-9]/m);
    expect(text).toMatch(
      /^http_request_duration_seconds_count\{method="POST",route="\/embed",status="200"\} [1-9]/m,
    );
    expect(text).toMatch(/^encoder_pending_calls 0$/m);
    expect(text).toMatch(/^nodejs_eventloop_lag_p99_seconds /m);
  });

  it("stops the work of a client that goes away", async () => {
    const texts = Array.from({ length: 2000 }, (_, i) => `${i} ${"swim ".repeat(60)}`);
    const pending = async () =>
      Number(/^encoder_pending_texts (\d+)/m.exec(await (await fetch(`${service.url}/metrics`)).text())?.[1]);
    const sent = httpRequest(`${service.url}/embed`, {
      method: "POST",
      headers: { "content-type": "application/json" },
    });
    sent.on("error", () => {});
    sent.end(JSON.stringify({ texts }));
    while ((await pending()) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    sent.destroy();
    const left = [];
    while (left.at(-1) !== 0) left.push(await pending());
    // It left at once, not text by text.
    expect(left.filter((count) => count > 0 && count < 1000)).toEqual([]);
  });
});

describe("a service of its own", () => {
  it("answers 503 with Retry-After when its queue is full", async () => {
    const small = await startService(["--threads=1", "--max-queue=1"]);
    const texts = Array.from({ length: 150 }, (_, i) => `${i} ${"swim ".repeat(40)}`);
    const all = await Promise.all(Array.from({ length: 8 }, () => post("/embed", { texts }, small.url)));
    const statuses = all.map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([200, 503]));
    const busy = all.find(({ status }) => status === 503) as Response;
    expect(busy.headers.get("retry-after")).toBe("1");
    expect(await busy.json()).toMatchObject({ error: { code: "BUSY" } });
    await Promise.all(all.filter((one) => one !== busy).map((one) => one.arrayBuffer()));
    expect(await small.stop()).toMatchObject({ code: 0 });
  });

  it("finishes what runs when it is told to stop, takes nothing more, and ends with 0", async () => {
    const one = await startService(["--threads=1"]);
    const texts = Array.from({ length: 300 }, (_, i) => `${i} ${"swim ".repeat(40)}`);
    const running = post("/embed", { texts }, one.url);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const ended = one.stop();
    const status = (sent: Promise<Response>) =>
      sent.then(
        (found) => found.status,
        () => "refused",
      );
    while ((await status(fetch(`${one.url}/ready`))) === 200)
      await new Promise((resolve) => setTimeout(resolve, 5));
    const late = await status(post("/embed", { texts: ["a"] }, one.url));
    expect([503, "refused"]).toContain(late);
    const { vectors } = (await (await running).json()) as { vectors: number[][] };
    expect(vectors).toHaveLength(300);
    expect(await ended).toMatchObject({ code: 0, signal: null, stderr: "" });
  });
});
