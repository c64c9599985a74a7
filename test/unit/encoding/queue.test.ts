import { setImmediate, setTimeout } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { type BatchingOptions, batchingSettings } from "../../../lib/encoding/batching.js";
import type { CallRequest } from "../../../lib/encoding/call.js";
import { EncodeQueue } from "../../../lib/encoding/queue.js";
import type { EncodeOptions, TokenBatch } from "../../../lib/native/types.js";

/** A text of n words is n tokens; its vector is [number of the first word, tokens]. */
const tokenizer = {
  slices: [] as string[][],
  async encode(texts: readonly string[]): Promise<TokenBatch> {
    this.slices.push([...texts]);
    const words = texts.map((text) => text.split(" ").map(Number));
    const cuSeqlens = new Int32Array(texts.length + 1);
    for (const [i, { length }] of words.entries()) cuSeqlens[i + 1] = (cuSeqlens[i] as number) + length;
    return { ids: Int32Array.from(words.flat()), cuSeqlens };
  },
};

class StubEncoder {
  readonly batches: { texts: number[]; options: EncodeOptions }[] = [];
  closed = 0;
  busy = false;
  /** Runs while a batch does; may throw. */
  during: (texts: number[]) => unknown = () => setImmediate();

  async encode({ ids, cuSeqlens }: TokenBatch, options: EncodeOptions): Promise<Float32Array> {
    if (this.busy || this.closed > 0) throw new Error("two calls at once, or one after close");
    this.busy = true;
    try {
      const texts = [...cuSeqlens.subarray(0, -1)].map((at) => ids[at] as number);
      this.batches.push({ texts, options });
      await this.during(texts);
      return Float32Array.from(
        texts.flatMap((text, i) => [text, (cuSeqlens[i + 1] as number) - (cuSeqlens[i] as number)]),
      );
    } finally {
      this.busy = false;
    }
  }

  async close(): Promise<void> {
    this.closed++;
  }
}

function start(batching: BatchingOptions = {}) {
  tokenizer.slices.length = 0;
  const native = new StubEncoder();
  const queue = new EncodeQueue(native, tokenizer, 2, batchingSettings(batching, "cpu"));
  const settings = { prefix: "", maxLength: 64, adapter: false as const };
  const encode = (texts: readonly string[], changes: Partial<CallRequest> = {}) =>
    queue.encode({ texts, settings: () => settings, normalize: true, ...changes });
  return { native, queue, encode };
}

/** Texts `first`, `first + 1`, ... of so many tokens. */
const texts = (first: number, count: number, tokens = 1) =>
  Array.from({ length: count }, (_, i) => [first + i, ...new Array(tokens - 1).fill(0)].join(" "));
const numbers = (rows: Float32Array[]) => rows.map((row) => row[0]);

describe("the queue of encode calls", () => {
  it("runs calls that are made together as one batch, and gives each its own vectors in its order", async () => {
    const { native, encode } = start();
    const found = await Promise.all([
      encode(texts(1, 3)),
      encode(texts(10, 2, 5)),
      encode([]),
      encode(texts(20, 1)),
    ]);
    expect(native.batches.map((batch) => batch.texts)).toEqual([[1, 2, 3, 10, 11, 20]]);
    expect(found.map(numbers)).toEqual([[1, 2, 3], [10, 11], [], [20]]);
    // Nobody sees the vectors of another call through the buffer of its own.
    expect(found.map((rows) => rows[0]?.buffer.byteLength)).toEqual([24, 16, undefined, 8]);
  });

  it("encodes a text that comes again once, for each adapter, and gives every place a vector of its own", async () => {
    const { native, encode } = start({ maxBatchTokens: 64 });
    const plain = { prefix: "", maxLength: 64, adapter: false as const };
    const named = { ...plain, adapter: "false" };
    const list = ["7", "8", "7", "7 1", "7", "7", ...texts(100, 200), "7", "8"];
    const rows = await encode(list, { settings: (i) => (i === 5 ? named : plain) });
    expect(numbers(rows)).toEqual(list.map((text) => Number(text.split(" ")[0])));
    const encoded = native.batches.flatMap((batch) => batch.texts);
    expect(encoded.filter((text) => text === 7)).toHaveLength(3); // "7", "7 1" and "7" by another adapter
    expect(encoded.filter((text) => text === 8)).toHaveLength(1);
    (rows[0] as Float32Array).fill(0);
    expect([rows[2]?.[0], rows.at(-2)?.[0]]).toEqual([7, 7]);
    // Within one batch too, and where it is all there is.
    expect(numbers(await encode(["3", "3", "3"]))).toEqual([3, 3, 3]);
    expect(native.batches.at(-1)?.texts).toEqual([3]);
  });

  it("hands out the vectors of many repeats in small turns of the event loop", async () => {
    const { native, encode } = start();
    let turns = 0;
    let running = true;
    native.during = async () => {
      await setTimeout(50); // until all texts are tokenised
      turns = 0;
    };
    const ticks = (async () => {
      for (; running; turns++) await setImmediate();
    })();
    const rows = await encode(new Array<string>(50_000).fill("7"));
    const seen = turns;
    running = false;
    await ticks;
    expect(rows.every((row) => row[0] === 7)).toBe(true);
    expect(native.batches).toHaveLength(1);
    expect(seen).toBeGreaterThan(10);
    // A call that is stopped meanwhile gets nothing more.
    const stop = new AbortController();
    native.during = async () => void setTimeout(20).then(() => stop.abort());
    await expect(
      encode(new Array<string>(2_000_000).fill("8"), { signal: stop.signal }),
    ).rejects.toMatchObject({
      code: "ABORTED",
    });
    expect(numbers(await encode(["9"]))).toEqual([9]);
  });

  it("fills batches by tokens and never above the limit, but for one text that is longer", async () => {
    const { native, encode } = start({ maxBatchTokens: 10 });
    const [short, long] = await Promise.all([encode(texts(1, 4, 4)), encode(texts(50, 1, 30))]);
    expect(native.batches.map((batch) => batch.texts)).toEqual([[1, 2], [50], [3, 4]]);
    expect(numbers(short)).toEqual([1, 2, 3, 4]);
    expect(long[0]?.[1]).toBe(30);
    expect(native.batches[0]?.options).toMatchObject({
      microBatchTokens: 10,
      normalize: true,
      adapter: false,
    });
  });

  it("keeps calls apart that are normalised differently, and all of them where that is asked for", async () => {
    const { native, encode } = start();
    await Promise.all([encode(["1"]), encode(["2"], { normalize: false }), encode(["3"])]);
    expect(native.batches.map((batch) => batch.texts)).toEqual([[1, 3], [2]]);
    const apart = start({ together: false });
    await Promise.all([apart.encode(["1"]), apart.encode(["2"])]);
    expect(apart.native.batches.map((batch) => batch.texts)).toEqual([[1], [2]]);
  });

  it("serves small calls while a large one runs, and the large one while small ones keep coming", async () => {
    const { native, encode } = start({ maxBatchTokens: 64 });
    const order: string[] = [];
    const large = encode(texts(1000, 1000)).then(() => order.push("large"));
    while (native.batches.length < 2) await setImmediate();
    const small = encode(["7"]).then(() => order.push("small"));
    await small;
    // The batch in hand, the one that holds the small call, and at most one that was being filled.
    expect(native.batches.length).toBeLessThanOrEqual(5);
    let done = false;
    const crowd = Array.from({ length: 40 }, async () => {
      while (!done) await encode(texts(1, 1, 8));
    });
    await large;
    done = true;
    await Promise.all(crowd);
    expect(order).toEqual(["small", "large"]);
    const both = native.batches.filter(
      ({ texts: all }) => all.includes(1) && all.some((text) => text >= 1000),
    );
    expect(both.length).toBeGreaterThan(10);
  });

  it("waits for others as long as it is told, and no longer once the batch is full", async () => {
    const { native, encode } = start({ maxWaitMs: 100, maxBatchTokens: 8 });
    const first = encode(["1"]);
    await setTimeout(20);
    expect(native.batches).toHaveLength(0);
    await Promise.all([first, encode(["2"])]);
    expect(native.batches.map((batch) => batch.texts)).toEqual([[1, 2]]);
    const startedAt = performance.now();
    await Promise.all([encode(texts(1, 1, 4)), encode(texts(2, 1, 4))]);
    const patient = start({ maxWaitMs: 60_000, maxBatchTokens: 8 });
    await Promise.all([patient.encode(texts(1, 1, 4)), patient.encode(texts(2, 1, 4))]);
    expect(performance.now() - startedAt).toBeLessThan(30_000);
  });

  it("answers BUSY when it is full, and takes calls again once there is room", async () => {
    const { native, queue, encode } = start({ maxQueue: 3 });
    const calls = [encode(["1"]), encode(["2"]), encode(texts(3, 4))];
    expect(queue.pending).toEqual({ calls: 3, texts: 6 });
    await expect(encode(["9"])).rejects.toMatchObject({ name: "PeftTrainError", code: "BUSY" });
    await Promise.all(calls);
    expect(queue.pending).toEqual({ calls: 0, texts: 0 });
    expect(numbers(await encode(["9"]))).toEqual([9]);
    expect(native.batches.flatMap((batch) => batch.texts)).toEqual([1, 2, 3, 4, 5, 6, 9]);
  });

  it("tokenises large calls in slices that the event loop sees between", async () => {
    const { encode } = start();
    let turns = 0;
    let done = false;
    const counting = (async () => {
      for (; !done; turns++) await setImmediate();
    })();
    await encode(texts(0, 3000, 30));
    done = true;
    await counting;
    const slices = tokenizer.slices.map((slice) => slice.join("").length);
    expect(Math.max(...slices)).toBeLessThan(5000);
    expect(turns).toBeGreaterThan(20);
  });
});

describe("a call that is stopped", () => {
  const aborted = { name: "PeftTrainError", code: "ABORTED", cause: "mine" };

  it("before it was made is not run", async () => {
    const { native, encode } = start();
    await expect(encode(["1"], { signal: AbortSignal.abort("mine") })).rejects.toMatchObject(aborted);
    expect(native.batches).toEqual([]);
  });

  it("while it waits leaves at once, and leaves its place", async () => {
    const { native, queue, encode } = start({ maxQueue: 2, together: false });
    const stop = new AbortController();
    const first = encode(["1"]);
    const second = encode(["2"], { signal: stop.signal });
    stop.abort("mine");
    await expect(second).rejects.toMatchObject(aborted);
    expect(queue.pending.calls).toBe(1);
    await Promise.all([first, encode(["3"])]);
    expect(native.batches.map((batch) => batch.texts)).toEqual([[1], [3]]);
  });

  it("while it runs ends at once, and what is left of it is not run", async () => {
    const { native, encode } = start({ maxBatchTokens: 10 });
    const stop = new AbortController();
    native.during = (batch) => batch.includes(20) && stop.abort("mine");
    const large = encode(texts(0, 1000), { signal: stop.signal });
    const other = encode(texts(5000, 30));
    await expect(large).rejects.toMatchObject(aborted);
    expect(numbers(await other)).toEqual(texts(5000, 30).map(Number));
    expect(native.batches.flatMap(({ texts: all }) => all).filter((text) => text < 1000).length).toBeLessThan(
      60,
    );
  });

  it("after it has ended is as it was", async () => {
    const { encode } = start();
    const stop = new AbortController();
    expect(numbers(await encode(["1"], { signal: stop.signal }))).toEqual([1]);
    stop.abort();
  });
});

describe("a failure", () => {
  it("is that of the call whose text it is; others of the same batch get their vectors", async () => {
    const { native, encode } = start();
    native.during = (batch) => {
      if (batch.includes(13)) throw new Error("unlucky");
    };
    const [good, bad, other] = await Promise.allSettled([encode(["1"]), encode(["2", "13"]), encode(["3"])]);
    expect(good).toMatchObject({ status: "fulfilled" });
    expect(bad).toMatchObject({ status: "rejected", reason: { message: "unlucky" } });
    expect(other).toMatchObject({ status: "fulfilled" });
    expect(numbers(await encode(["4"]))).toEqual([4]);
  });

  it("of the tokenizer reaches its callers", async () => {
    const { queue } = start();
    const broken = new EncodeQueue(
      new StubEncoder(),
      { encode: () => Promise.reject(new Error("no")) },
      2,
      batchingSettings({}, "cpu"),
    );
    const settings = { prefix: "", maxLength: 64, adapter: false as const };
    await expect(broken.encode({ texts: ["1"], settings: () => settings, normalize: true })).rejects.toThrow(
      "no",
    );
    await queue.close();
  });
});

describe("other work on the encoder", () => {
  it("runs alone, between two batches, and does not keep calls from theirs", async () => {
    const { native, queue, encode } = start({ maxBatchTokens: 10 });
    const order: string[] = [];
    native.during = () => void order.push("batch");
    const work = (async () => {
      for (let i = 0; i < 5; i++) {
        await queue.turn(async () => {
          expect(native.busy).toBe(false);
          order.push("turn");
          await setImmediate();
        });
      }
    })();
    await Promise.all([encode(texts(0, 50)), work]);
    expect(order.slice(1, 9)).toEqual(Array.from({ length: 8 }, (_, i) => order[1 + (i % 2)]));
    await expect(queue.turn(() => Promise.reject(new Error("mine")))).rejects.toThrow("mine");
  });

  it("close waits for all calls before it and refuses all after it", async () => {
    const { native, queue, encode } = start({ maxBatchTokens: 4 });
    const before = encode(texts(0, 20));
    const closing = queue.close();
    const closed = { name: "PeftTrainError", code: "ENCODER_CLOSED" };
    await expect(encode(["1"])).rejects.toMatchObject(closed);
    await expect(queue.turn(async () => 1)).rejects.toMatchObject(closed);
    expect(await before).toHaveLength(20);
    await Promise.all([closing, queue.close()]);
    expect(native.closed).toBe(1);
  });
});

it("settings out of range are refused by name", () => {
  for (const [options, message] of [
    [{ maxBatchTokens: 0 }, "batching.maxBatchTokens=0: expected a whole number of at least 1"],
    [{ maxQueue: 1.5 }, "batching.maxQueue=1.5: expected a whole number"],
    [{ maxWaitMs: -1 }, "batching.maxWaitMs=-1: expected a number of at least 0"],
    [{ together: 1 as unknown as boolean }, "batching.together=1: expected true or false"],
  ] as const) {
    expect(() => batchingSettings(options, "cpu")).toThrow(message);
  }
  expect(batchingSettings({}, "cuda:0").maxBatchTokens).toBe(16_384);
});
