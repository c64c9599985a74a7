import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { beginWithEva, evaSites, keyOf } from "../../lib/adapter/eva.js";
import { openAdapterFolder } from "../../lib/adapter/folder.js";
import { DEFAULT_LORA, type LoraConfig } from "../../lib/adapter/lora-config.js";
import { readStoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { resolveTargets } from "../../lib/adapter/targets.js";
import { convert } from "../../lib/merge/convert.js";
import type { ModelFolder } from "../../lib/model/folder.js";
import { ModelWeights } from "../../lib/model/model-weights.js";
import { writeSafetensors } from "../../lib/model/tensor-writer.js";
import { loadEngine } from "../../lib/native/load.js";
import type { WeightStorage } from "../../lib/native/types.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { maxDifference } from "./distance.js";
import {
  caseTexts,
  goldenPath,
  goldenShape,
  manifest,
  pick,
  range,
  textBatch,
  withGolden,
} from "./golden.js";
import { goldenFolder } from "./golden-folder.js";
import { readTensors } from "./safetensors.js";

const embeddings = readTensors(goldenPath("init/embeddings.safetensors")).floats;
/** What PEFT's LoftQ left of the matrices. */
const bases = readTensors(goldenPath("init/bases.safetensors")).floats;
const temporary = temporaryFolder();
const allTexts = textBatch(range(0, 2 * (manifest.batches.at(-1) as [number, number])[1]));
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

describe("EVA", () => {
  const { eva } = JSON.parse(readFileSync(goldenPath("init/manifest.json"), "utf8")) as {
    eva: { rankPattern: Record<string, number>; alphaPattern: Record<string, number> };
  };
  const wanted = readTensors(goldenPath("init/eva-components.safetensors"));

  it("gives ranks, alphas and the directions of A that PEFT gives", async () => {
    const lora: LoraConfig = {
      ...DEFAULT_LORA,
      r: 4,
      loraAlpha: 6,
      targetModules: ["query", "value", "dense"],
      excludeModules: ["pooler.dense"],
      rankPattern: { value: 3 },
    };
    const shape = goldenShape("plain");
    const { modules } = resolveTargets(lora, { shape, hasPooler: true });
    const widest = ({ matrix }: { matrix: string }) =>
      matrix === "output" ? shape.intermediateSize : shape.hiddenSize;
    const sites = evaSites(modules, 1.5, widest);
    await withGolden("plain", {}, async (encoder) => {
      for (const microBatchTokens of [64, 4096]) {
        const found = await encoder.inputComponents(allTexts, sites, microBatchTokens);
        const directions = new Map(
          sites.map((site) => {
            const [components, ratios] = ["components", "ratios"].map((part) =>
              pick(found, `${keyOf(site)}.${part}`),
            ) as [Float32Array, Float32Array];
            return [keyOf(site), { components, ratios }];
          }),
        );
        const { lora: began, a } = beginWithEva(lora, modules, directions);
        expect(began.rankPattern).toEqual(eva.rankPattern);
        expect(began.alphaPattern).toEqual(eva.alphaPattern);
        expect(Object.keys(a).sort()).toEqual(Object.keys(wanted.floats).sort());
        for (const [name, theirs] of Object.entries(wanted.floats)) {
          const ours = pick(a, name);
          expect(ours).toHaveLength(theirs.length);
          const width = pick(wanted.shapes, name)[1] as number;
          for (let row = 0; row < theirs.length; row += width) {
            let dot = 0;
            for (let i = row; i < row + width; i++) dot += (ours[i] as number) * (theirs[i] as number);
            // PEFT's decomposition is a randomised one; the sign is that of the largest entry in both.
            expect(dot, `${name}, row ${row / width}`).toBeGreaterThan(0.999);
          }
        }
      }
    });
  });

  it("begins a fresh adapter with these directions and no effect", () =>
    withGolden("plain", {}, async (encoder) => {
      const whole = { normalize: true, microBatchTokens: 4096 };
      const base = await encoder.encode(caseTexts, { adapter: false, ...whole });
      const name = "encoder.layer.1.attention.self.query";
      const a = Float32Array.from({ length: 2 * 32 }, (_, i) => i / 64);
      const spec = { modules: [{ name, rank: 2, scale: 1 }], dropout: 0 };
      await encoder.createAdapter({ ...spec, a: { [name]: a } }, 1);
      expect((await encoder.adapterWeights())[`base_model.model.${name}.lora_A.weight`]).toEqual(a);
      expect(await encoder.encode(caseTexts, { adapter: true, ...whole })).toEqual(base);
      const short = { ...spec, a: { [name]: a.subarray(1) } };
      await expect(encoder.createAdapter(short, 1)).rejects.toMatchObject({ code: "USAGE" });
      const wide = [{ layer: 0, matrix: "qkv" as const, count: 33 }];
      await expect(encoder.inputComponents(caseTexts, wide, 300)).rejects.toMatchObject({ code: "USAGE" });
    }));
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
