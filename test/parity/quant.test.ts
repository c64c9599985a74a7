import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type ModelFolder, openModelFolder } from "../../lib/model/folder.js";
import { chooseStorage } from "../../lib/model/storage.js";
import { loadEngine } from "../../lib/native/load.js";
import type { TokenBatch, WeightStorage } from "../../lib/native/types.js";
import { quantize } from "../../lib/quantize.js";
import { type QuantizeSettings, quantizeRequest } from "../../lib/train/options/quantize-settings.js";
import { copyQuantModel, expectedEmbeddings, quantPath, readRaw } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { mulberry32, writeTinyModel } from "../support/tiny-model.js";
import { maxDifference } from "./distance.js";

const temporary = temporaryFolder();
const golden = expectedEmbeddings();
let count = 0;
let source: string;

/** As for float32 models: the weights are the reference's to the bit, orders of float32 sums are not. */
const TOLERANCE = 1e-5;
/** int8: where such a difference tips an activation over to the next of its 255 steps, that step shows. */
const INT8_TOLERANCE = 1e-4;
/** float16 has 11 bits: half a unit in the last is 2.4e-4 of each number of a word embedding. */
const HALF_TOLERANCE = 1e-3;

const CASES: [name: string, settings: QuantizeSettings][] = [
  ["nf4", { type: "nf4" }],
  ["nf4-double", { type: "nf4", doubleQuant: true }],
  ["fp4", { type: "fp4" }],
  ["int8", { type: "int8" }],
];

beforeAll(() => {
  source = copyQuantModel("model", temporary.path("source"));
});

const newFolder = () => temporary.path(`folder-${count++}`);

function rows(table: "embeddings" | "halfWords", name: string): number[] {
  return golden[table][name]?.flat() ?? expect.fail(`there is no ${name}`);
}

function batchOf(texts: number[][]): TokenBatch {
  const cuSeqlens = new Int32Array(texts.length + 1);
  for (const [i, text] of texts.entries()) cuSeqlens[i + 1] = (cuSeqlens[i] as number) + text.length;
  return { ids: Int32Array.from(texts.flat()), cuSeqlens };
}

async function embed(folder: ModelFolder, storage?: WeightStorage, texts = golden.tokenIds) {
  const { weightsPath, shape, pooling } = folder;
  const options = { weightsPath, shape, pooling, device: "cpu", threads: 2 };
  const encoder = await loadEngine().open({ ...options, ...(storage && { storage }) });
  try {
    return await encoder.encode(batchOf(texts), { adapter: false, normalize: true, microBatchTokens: 1024 });
  } finally {
    await encoder.close();
  }
}

describe("a model that transformers and bitsandbytes wrote gives Python's embeddings", () => {
  for (const [name] of CASES.filter(([name]) => name !== "int8")) {
    it(name, async () => {
      const folder = await openModelFolder(copyQuantModel(name, newFolder()));
      const found = await embed(folder, folder.quantized);
      expect(maxDifference(found, rows("halfWords", name))).toBeLessThan(TOLERANCE);
      expect(maxDifference(found, rows("embeddings", name))).toBeLessThan(HALF_TOLERANCE);
      // What quantisation does to this model is far more.
      expect(maxDifference(found, rows("embeddings", "float32"))).toBeGreaterThan(50 * HALF_TOLERANCE);
    });
  }

  for (const threshold of [6, 0]) {
    it(`int8, outliers from ${threshold} on`, async () => {
      const folder = await openModelFolder(copyQuantModel("int8", newFolder()));
      const storage = { ...(folder.quantized as WeightStorage), outlierThreshold: threshold };
      const found = await embed(folder, storage);
      expect(maxDifference(found, rows("halfWords", `int8-entries-${threshold}`))).toBeLessThan(
        INT8_TOLERANCE,
      );
      // bitsandbytes takes whole columns apart, and rounds x to float16 first: no further from it than rounding x goes.
      const theirs = rows("embeddings", `int8-threshold-${threshold}`);
      const rounding = maxDifference(found, rows("embeddings", "int8"));
      expect(maxDifference(found, theirs)).toBeLessThan(rounding);
    });
  }
});

describe("`quantize` writes what transformers and bitsandbytes write", () => {
  for (const [name, settings] of CASES) {
    it(`to the bit: ${name}`, async () => {
      const output = newFolder();
      const { report } = await quantize(source, output, settings);
      const [ours, theirs] = [output, quantPath(name)].map((folder) =>
        readRaw(join(folder, "model.safetensors")),
      );
      if (ours === undefined || theirs === undefined) return expect.fail();
      expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
      const different = [...theirs].flatMap(([key, { dtype, shape, bytes }]) => {
        const found = ours.get(key);
        const same = found?.dtype === dtype && `${found.shape}` === `${shape}` && found.bytes.equals(bytes);
        return same ? [] : [key];
      });
      expect(different).toEqual(["embeddings.word_embeddings.weight"]);
      expect(ours.get("embeddings.word_embeddings.weight")).toMatchObject({ dtype: "F16", shape: [100, 64] });
      const config = (folder: string) => readFileSync(join(folder, "config.json"), "utf8").trimEnd();
      expect(config(output)).toBe(config(quantPath(name)));
      expect(report).toMatchObject({ tensors: 13, parameters: 69_632, sourceBytes: 4 * 69_632 });
    });
  }
});

describe("quantised once and for all, or while it is loaded: the same embeddings to the bit", () => {
  const random = mulberry32(20);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
  for (let trial = 0; trial < 16; trial++) {
    const heads = pick([1, 2, 3, 5]);
    const config = {
      hidden_size: heads * pick([4, 7, 10, 16]),
      num_attention_heads: heads,
      intermediate_size: pick([3, 17, 33, 64, 130]),
      vocab_size: pick([205, 211]),
      num_hidden_layers: pick([1, 2]),
    };
    const type = pick(["nf4", "nf4", "fp4", "int8"] as const);
    const four = {
      blockSize: pick([32, 64, 256, 1024, 4096]),
      doubleQuant: pick([true, false]),
      outlierFraction: pick([0, 0.003, 0.1]),
    };
    const settings: QuantizeSettings = type === "int8" ? { type } : { type, ...four };
    const pooler = pick([true, false]);

    it(`${JSON.stringify(settings)}, hidden ${config.hidden_size}, inner ${config.intermediate_size}`, async () => {
      const model = writeTinyModel(newFolder(), { config, pooler, seed: trial + 1 });
      const output = newFolder();
      const { storage } = await quantize(model, output, settings);
      const [before, after] = [await openModelFolder(model), await openModelFolder(output)];
      expect(after.quantized).toMatchObject({ ...storage, outlierFraction: expect.any(Number) });
      expect(after.hasPooler).toBe(pooler);
      const texts = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16, 17]];
      const atOnce = await embed(before, storage, texts);
      expect(maxDifference(await embed(after, after.quantized, texts), atOnce)).toBe(0);
      expect(maxDifference(atOnce, await embed(before, undefined, texts))).toBeGreaterThan(0);
    });
  }
});

describe("the fraction of outliers that a folder was quantised with", () => {
  // Of 1,024 weights 1.5, of 2,048 3.07: the file holds 0.98 and 1.46 in a thousand.
  const settings: QuantizeSettings = { type: "nf4", outlierFraction: 0.0015 };
  const ask = (outlierFraction: number, folder: ModelFolder) =>
    chooseStorage(quantizeRequest({ type: "nf4", outlierFraction }), folder);

  it("is known by the record, and without one by what rounding leaves of it", async () => {
    const output = newFolder();
    const { report } = await quantize(writeTinyModel(newFolder()), output, settings);
    const held = report.outliers / report.parameters;
    expect(held).toBeLessThan(0.0013);
    const open = () => openModelFolder(output);
    expect((await open()).quantized?.outlierFraction).toBe(0.0015);
    expect(ask(0.0015, await open())).toMatchObject({ format: "nf4" });
    const record = join(output, "peft_train_quantized.json");
    for (const text of ['{"format": 1,', JSON.stringify({ format: 1, weights_sha256: "0".repeat(64) })]) {
      writeFileSync(record, text);
      const folder = await open();
      expect(folder.quantized?.outlierFraction).toBeCloseTo(held, 10);
      expect(ask(0.0015, folder)).toMatchObject({ format: "nf4" });
      expect(() => ask(0.003, folder)).toThrow("quantize.outlierFraction: the weights of");
    }
  });
});

describe("a broken quantised file is refused in one sentence", () => {
  type Change = (text: string) => string;
  for (const [title, change, code, message] of [
    [
      "a state of another shape",
      (text: string) => text.replace('"shape": [64, 64]', '"shape": [64, 32]'),
      "QUANT_STATE",
      /attention/,
    ],
    [
      "a state of another type",
      (text: string) => text.replace('{"quant_type": "nf4"', '{"quant_type": "nf8"'),
      "QUANT_STATE",
      /nf8/,
    ],
    [
      "a block size that the scales do not fit",
      (text: string) => text.replaceAll('"blocksize": 64', '"blocksize": 32'),
      "QUANT_STATE",
      /absmax/,
    ],
  ] as [string, Change, string, RegExp][]) {
    it(title, async () => {
      const path = copyQuantModel("nf4", newFolder());
      const file = join(path, "model.safetensors");
      const text = readFileSync(file, "latin1");
      expect(change(text)).not.toBe(text);
      writeFileSync(file, change(text), "latin1");
      const folder = await openModelFolder(path);
      await expect(embed(folder, folder.quantized)).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
    });
  }

  it("NaN among the weights is not quantised, and nothing is left behind", async () => {
    const model = copyQuantModel("model", newFolder());
    const file = join(model, "model.safetensors");
    const bytes = readFileSync(file);
    bytes.writeFloatLE(Number.NaN, bytes.length - 64 * 64 * 2);
    writeFileSync(file, bytes);
    const parent = newFolder();
    mkdirSync(parent);
    await expect(quantize(model, join(parent, "out"), "nf4")).rejects.toMatchObject({
      code: "NOT_FINITE",
      message: expect.stringContaining(file),
    });
    expect(readdirSync(parent)).toEqual([]);
  });
});
