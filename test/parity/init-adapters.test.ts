import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openAdapterFolder } from "../../lib/adapter/folder.js";
import { readStoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { convert } from "../../lib/merge/convert.js";
import type { ModelFolder } from "../../lib/model/folder.js";
import { ModelWeights } from "../../lib/model/model-weights.js";
import { writeSafetensors } from "../../lib/model/tensor-writer.js";
import { loadEngine } from "../../lib/native/load.js";
import type { WeightStorage } from "../../lib/native/types.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { maxDifference } from "./distance.js";
import { caseTexts, goldenPath, goldenShape, pick } from "./golden.js";
import { goldenFolder } from "./golden-folder.js";
import { readTensors } from "./safetensors.js";

const embeddings = readTensors(goldenPath("init/embeddings.safetensors")).floats;
/** What PEFT's LoftQ left of the matrices. */
const bases = readTensors(goldenPath("init/bases.safetensors")).floats;
const temporary = temporaryFolder();
/** As for every adapter on its base: float32 sums in another order, on entries of up to 0.5. */
const TOLERANCE = 1e-5;

const NF4: WeightStorage = {
  format: "nf4",
  blockSize: 64,
  doubleQuant: false,
  outlierFraction: 0,
  outlierThreshold: 6,
};
const plain = () => goldenFolder("plain", temporary.path("plain"));

/** The model with the matrices that PEFT's LoftQ made for an adapter. */
async function loftqBase(name: string): Promise<ModelFolder> {
  const source = await plain();
  const folder = await goldenFolder("plain", temporary.path(`base-${name}`));
  await using weights = await ModelWeights.open(source.weightsPath);
  const tensors = weights.sources("float32", (key, values) => bases[`${name}|${key}`] ?? values);
  await writeSafetensors(folder.weightsPath, tensors);
  return folder;
}

async function encode(name: string, model: ModelFolder, storage?: WeightStorage): Promise<Float32Array> {
  const { weightsPath, spec } = await openAdapterFolder(goldenPath(`init/${name}`), model, {}, storage);
  const encoder = await loadEngine().open({
    weightsPath: model.weightsPath,
    shape: goldenShape("plain"),
    pooling: "mean",
    device: "cpu",
    threads: 1,
    ...(storage && { storage }),
  });
  try {
    await encoder.loadAdapter(weightsPath, spec);
    return await encoder.encode(caseTexts, { adapter: true, normalize: true, microBatchTokens: 4096 });
  } finally {
    await encoder.close();
  }
}

describe("an adapter that PEFT began with EVA", () => {
  it("has ranks of its own for every matrix, and gives PEFT's embeddings", async () => {
    const { config, modules } = await readStoredAdapter(goldenPath("init/eva"));
    expect(config.raw).toMatchObject({ init_lora_weights: "eva", eva_config: { rho: 2 } });
    expect(Object.keys(config.lora.rankPattern).length).toBeGreaterThan(0);
    expect(new Set([...modules.values()].map(({ rank }) => rank)).size).toBeGreaterThan(1);
    expect(maxDifference(await encode("eva", await plain()), pick(embeddings, "eva"))).toBeLessThan(
      TOLERANCE,
    );
  });
});

describe("an adapter that PEFT began with LoftQ", () => {
  it("runs over NF4 as PEFT quantises its base when it loads it", async () => {
    const wanted = pick(embeddings, "loftq");
    expect(maxDifference(await encode("loftq", await plain(), NF4), wanted)).toBeLessThan(TOLERANCE);
  });

  it.each(["loftq-2", "loftq-int8"])(
    "runs over the base that PEFT left, held in plain numbers: %s",
    async (name) => {
      const base = await loftqBase(name);
      expect(maxDifference(await encode(name, base), pick(embeddings, name))).toBeLessThan(TOLERANCE);
    },
  );

  it.each([
    ["loftq", undefined, /quantises the matrices of LoRA to 4 bits first; those of /, /--load_in_4bit/],
    ["loftq", { ...NF4, doubleQuant: true }, /to 4 bits first/, /--load_in_4bit/],
    ["loftq", { ...NF4, blockSize: 128 }, /to 4 bits first/, /--load_in_4bit/],
    ["loftq", { ...NF4, format: "int8" }, /to 4 bits first/, /--load_in_4bit/],
    [
      "loftq-2",
      NF4,
      /to 4 bits first, in 2 turns with a low-rank correction/,
      /^Give as the base what PEFT made/,
    ],
    ["loftq-int8", { ...NF4, format: "int8" }, /to 8 bits first/, /^Give as the base what PEFT made/],
  ] as const)("is refused by name over other weights: %s on %j", async (name, storage, message, hint) => {
    await expect(
      openAdapterFolder(goldenPath(`init/${name}`), await plain(), {}, storage),
    ).rejects.toMatchObject({
      code: "ADAPTER_UNSUPPORTED",
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    });
  });

  it("still says so in another form, and is no part of a sum", async () => {
    const out = temporary.path("wrapped");
    await convert(goldenPath("init/loftq-2"), out, { layout: "wrapped" });
    const { config } = await readStoredAdapter(out);
    expect(config.loftq).toEqual({ bits: 4, iterations: 2 });
    expect(config.raw).toMatchObject({
      init_lora_weights: "loftq",
      loftq_config: { loftq_bits: 4, loftq_iter: 2 },
    });
  });

  it("is refused where its loftq_config says nothing that PEFT takes", async () => {
    const folder = temporary.path("bad");
    cpSync(goldenPath("init/loftq"), folder, { recursive: true });
    const file = `${folder}/adapter_config.json`;
    const config = JSON.parse(readFileSync(file, "utf8"));
    writeFileSync(file, JSON.stringify({ ...config, loftq_config: { loftq_bits: 3 } }));
    await expect(readStoredAdapter(folder)).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
  });
});
