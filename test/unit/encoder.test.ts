import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import type { LoadOptions } from "../../lib/encoder-options.js";
import type { NativeEncoder, OpenOptions } from "../../lib/native/types.js";
import { FakeEngine } from "../support/fake-engine.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
let model: string;

beforeAll(() => {
  model = writeTinyModel(temporary.path("model"));
});

const load = (engine: FakeEngine, options: LoadOptions = {}) =>
  Encoder.load(model, { engine: () => engine, ...options });
const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);

describe("an encoder", () => {
  it("gives a vector a text in the order of the texts, however they are sorted for the engine", async () => {
    await using encoder = await load(new FakeEngine());
    const texts = Array.from({ length: 50 }, (_, i) => "a b c d e f g".slice(0, 1 + (i % 13)));
    const together = await encoder.encode(texts);
    expect(together).toHaveLength(50);
    for (const [i, text] of texts.entries()) {
      const [alone] = await encoder.encode([text]);
      expect(together[i]).toEqual(alone);
    }
    expect(await encoder.encode([])).toEqual([]);
  });

  it("queues calls that overlap, close included", async () => {
    const engine = new FakeEngine();
    const encoder = await load(engine);
    const [a, b] = await Promise.all([encoder.encode(["a"]), encoder.encode(["b"]), encoder.close()]);
    expect([a.length, b.length, engine.closed]).toEqual([1, 1, 1]);
  });

  it("puts prefixes before texts and cuts them at maxLength", async () => {
    const engine = new FakeEngine();
    await using encoder = await load(engine);
    await encoder.encode(["a b c"]);
    await encoder.encode(["a b c"], { prefix: "d e " });
    await encoder.encode(["a b c"], { maxLength: 4 });
    expect(engine.encoded.map(({ batch }) => batch.ids.length)).toEqual([5, 7, 4]);
    await expect(encoder.encode(["a"], { maxLength: 65 })).rejects.toMatchObject({ code: "USAGE" });
    expect(encoder.defaults).toEqual({ prefix: "", maxLength: 64 });
  });

  it("counts the tokens that it encodes", async () => {
    const engine = new FakeEngine();
    await using encoder = await load(engine);
    const texts = ["a b c", "", "a ".repeat(100)];
    expect(await encoder.countTokens(texts)).toEqual([5, 2, 64]);
    expect(await encoder.countTokens(texts, { prefix: "d ", maxLength: 5 })).toEqual([5, 3, 5]);
    await encoder.encode(texts);
    expect(engine.encoded[0]?.batch.ids).toHaveLength(71);
    expect(await encoder.countTokens(new Array(100).fill("a b"))).toEqual(new Array(100).fill(4));
  });

  it("gives cosines of pairs", async () => {
    await using encoder = await load(new FakeEngine());
    const [a, b] = await encoder.encode(["a b", "c"]);
    const found = await encoder.similarity(["a b", "c"], ["c", "c"]);
    expect(found[0]).toBeCloseTo(dot(a as Float32Array, b as Float32Array), 6);
    expect(found[1]).toBeCloseTo(1, 6);
    await expect(encoder.similarity(["a"], [])).rejects.toMatchObject({ code: "USAGE" });
  });

  it("gives no cosine above 1, whatever length the engine rounds vectors to", async () => {
    class RoundedUp extends FakeEngine {
      override async open(options: OpenOptions): Promise<NativeEncoder> {
        const encoder = await super.open(options);
        const encode = encoder.encode.bind(encoder);
        encoder.encode = async (...args) => (await encode(...args)).map((value) => value * (1 + 2e-7));
        return encoder;
      }
    }
    await using encoder = await load(new RoundedUp());
    const [vector] = await encoder.encode(["a"]);
    expect(Math.fround(dot(vector as Float32Array, vector as Float32Array))).toBeGreaterThan(1);
    expect([...(await encoder.similarity(["a", "b"], ["a", "b"]))]).toEqual([1, 1]);
  });

  it("evaluates a file of pairs, and can be told to stop", async () => {
    const engine = new FakeEngine();
    await using encoder = await load(engine);
    const file = writePairs(temporary.path("pairs.csv"), 30);
    const metrics = await encoder.evaluate(file);
    expect(metrics).toMatchObject({ pairs: 30, positives: 10 });
    // The fake engine's vectors do not know the order of words, so positives are all alike.
    expect(metrics.rocAuc).toBe(1);
    const signal = AbortSignal.abort();
    await expect(encoder.evaluate(file, { signal })).rejects.toMatchObject({ code: "ABORTED" });
  });

  it("refuses options out of range, naming the range, before the model is loaded", async () => {
    for (const [options, message] of [
      [{ threads: 5000 }, "threads=5000: expected a whole number of at least 0 and at most 1024"],
      [{ threads: 1.5 }, "threads=1.5: expected a whole number"],
      [{ device: "gpu" }, "device=gpu: expected cpu, cuda or cuda:N"],
      [{ pooling: "max" as "mean" }, "pooling=max: expected one of mean, cls"],
    ] as const) {
      const refusal = Encoder.load(model, { engine: () => expect.fail("the engine was loaded"), ...options });
      await expect(refusal).rejects.toMatchObject({
        code: "USAGE",
        message: expect.stringContaining(message),
      });
    }
    await using encoder = await load(new FakeEngine());
    const file = writePairs(temporary.path("few.csv"), 9);
    for (const batchSize of [0, -1, Number.NaN, 1e12]) {
      await expect(encoder.evaluate(file, { batchSize })).rejects.toThrow(
        `batchSize=${batchSize}: expected a whole number of at least 1 and at most 65536`,
      );
    }
    await expect(encoder.encode(["a"], { maxLength: Number.NaN })).rejects.toThrow("maxLength=NaN: expected");
  });

  it("refuses what is no list of texts", async () => {
    await using encoder = await load(new FakeEngine());
    for (const [texts, found] of [
      ["abc", "found string"],
      [undefined, "found undefined"],
      [["a", 1], "found number at 1"],
    ] as const) {
      await expect(encoder.encode(texts as unknown as string[])).rejects.toMatchObject({
        code: "USAGE",
        message: `texts: expected an array of strings, ${found}`,
      });
    }
  });

  it("is refused when its tokenizer has more tokens than the model", async () => {
    const small = writeTinyModel(temporary.path("small"));
    const tokenizer = JSON.parse(readFileSync(`${small}/tokenizer.json`, "utf8"));
    tokenizer.model.vocab.extra = 205;
    writeFileSync(`${small}/tokenizer.json`, JSON.stringify(tokenizer));
    await expect(Encoder.load(small, { engine: () => new FakeEngine() })).rejects.toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringMatching(/206 tokens.* 205/),
    });
  });

  it("frees the model when the adapter does not load", async () => {
    const adapter = temporary.path("adapter");
    mkdirSync(adapter);
    writeFileSync(`${adapter}/adapter_config.json`, '{"peft_type":"LORA"}');
    copyFileSync(`${model}/model.safetensors`, `${adapter}/adapter_model.safetensors`);
    const engine = new FakeEngine();
    const open = engine.open.bind(engine);
    engine.open = async (options) => {
      const encoder = await open(options);
      encoder.loadAdapter = () => Promise.reject(new Error("no"));
      return encoder;
    };
    await expect(load(engine, { adapter })).rejects.toThrow("no");
    expect(engine.closed).toBe(1);
  });
});
