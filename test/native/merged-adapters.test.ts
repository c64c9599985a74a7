import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder, type LoadOptions, mergeAdapter } from "../../lib/index.js";
import { openModelFolder } from "../../lib/model/folder.js";
import { loadEngine } from "../../lib/native/load.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const MODEL = fileURLToPath(new URL("../../data/encoder", import.meta.url));
const temporary = temporaryFolder();
const TARGETS = ["query", "value", "intermediate.dense"];
const adapters = ["support", "sales"] as const;

/** Random adapters whose B is not zero. */
beforeAll(async () => {
  const { weightsPath, shape, pooling } = await openModelFolder(MODEL);
  const native = await loadEngine().open({ weightsPath, shape, pooling, device: "cpu", threads: 1 });
  for (const [seed, name] of adapters.entries()) {
    mkdirSync(temporary.path(name));
    const targets = ["attention.self.query", "attention.self.value", "intermediate.dense"];
    const modules = Array.from({ length: shape.numLayers }, (_, layer) =>
      targets.map((target) => ({ name: `encoder.layer.${layer}.${target}`, rank: 4, scale: 0.5 })),
    ).flat();
    await native.createAdapter({ modules, dropout: 0, init: { kind: "uniform" } }, seed, name);
    await native.saveAdapter(temporary.path(`${name}/adapter_model.safetensors`), name);
    const config = { peft_type: "LORA", r: 4, lora_alpha: 2, target_modules: TARGETS };
    writeFileSync(temporary.path(`${name}/adapter_config.json`), JSON.stringify(config));
  }
  await native.close();
});

const texts = ["how do I learn to swim", "what does it cost", "hello", "ways to learn swimming", "a"];

async function load(options: LoadOptions): Promise<Encoder> {
  const encoder = await Encoder.load(MODEL, { threads: 1, ...options });
  for (const name of adapters) await encoder.addAdapter(name, temporary.path(name));
  return encoder;
}

/** Everything that is not to change, and texts of several adapters in one batch. */
async function others(encoder: Encoder) {
  return [
    await encoder.encode(texts, { adapter: false }),
    await encoder.encode(texts, { adapter: "sales" }),
    await encoder.encode(texts, { adapters: ["sales", false, "sales", false, "sales"] }),
  ];
}

const CASES: [string, LoadOptions, number][] = [
  ["float32", {}, 1e-10],
  ["float16", { dtype: "float16" }, 1e-3],
  ["nf4", { quantize: "nf4" }, 1],
  [
    "nf4 with 8-bit scales and outliers",
    { quantize: { type: "nf4", doubleQuant: true, outlierFraction: 0.005 } },
    1,
  ],
  ["int8", { quantize: "int8" }, 0.1],
];

describe("an adapter that is merged and unmerged again", () => {
  it.each(CASES)("over %s", async (_, options, tolerance) => {
    await using encoder = await load(options);
    const before = await encoder.encode(texts, { adapter: "support" });
    const unchanged = await others(encoder);
    const { adapter: bytes } = await encoder.memory();
    const result = await encoder.mergeAdapter("support");
    expect(result.texts).toBe(256);
    expect(result.modules).toBe(12);
    expect(result.worstDrift).toBeLessThanOrEqual(tolerance);
    expect(result.warnings).toHaveLength(options.quantize === undefined ? 0 : 1);
    expect((await encoder.memory()).adapter).toBe(bytes + result.bytes);
    expect(encoder.adapters.map(({ merged }) => merged)).toEqual([true, false]);
    const merged = await encoder.encode(texts, { adapter: "support" });
    expect(merged).not.toEqual(before);
    expect(await others(encoder)).toEqual(unchanged);
    const mixed = ["support", "sales", false, "support", "sales"] as const;
    const together = await encoder.encode(texts, { adapters: mixed });
    for (const [i, vector] of together.entries()) {
      const alone = await encoder.encode([texts[i] as string], { adapter: mixed[i] as string | false });
      expect([vector]).toEqual(alone);
    }
    await encoder.unmergeAdapter("support");
    expect(await encoder.encode(texts, { adapter: "support" })).toEqual(before);
    expect(await others(encoder)).toEqual(unchanged);
    expect((await encoder.memory()).adapter).toBe(bytes);
  });

  it("may be held in float32 over 4 bits, which loses nothing", async () => {
    await using encoder = await load({ quantize: "nf4" });
    const rounded = await encoder.mergeAdapter("support");
    await encoder.unmergeAdapter("support");
    const exact = await encoder.mergeAdapter("support", { dtype: "float32" });
    expect(exact).toMatchObject({ dtype: "float32", warnings: [] });
    expect(exact.worstDrift).toBeLessThan(1e-10);
    expect(rounded.meanDrift).toBeGreaterThan(100 * exact.meanDrift);
    expect(exact.bytes).toBeGreaterThan(5 * rounded.bytes);
  });

  it("has the vectors of its merge into a model folder", async () => {
    const folder = temporary.path("merged");
    const { drift } = await mergeAdapter(MODEL, temporary.path("support"), folder, { threads: 1 });
    await using encoder = await load({});
    const result = await encoder.mergeAdapter("support");
    expect(result.texts).toBe(drift.texts);
    // Float32 sums in another order: about 1e-13 for either.
    expect(Math.max(result.worstDrift, drift.worst)).toBeLessThan(1e-10);
    await using model = await Encoder.load(folder, { threads: 1 });
    const wanted = (await model.encode(texts)).flatMap((vector) => [...vector]);
    const found = (await encoder.encode(texts, { adapter: "support" })).flatMap((vector) => [...vector]);
    // Both are rounded once from double precision, so that a weight may differ in its last bit at most.
    expect(Math.max(...found.map((value, i) => Math.abs(value - (wanted[i] as number))))).toBeLessThan(2e-7);
  });
});
