import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parseAdapterConfig } from "../../../lib/adapter/config.js";
import { DEFAULT_LORA, type LoraConfig } from "../../../lib/adapter/lora-config.js";
import {
  idleSettings,
  resolveTargets,
  storedTargets,
  unmatchedTargets,
} from "../../../lib/adapter/targets.js";
import { parseModelConfig } from "../../../lib/model/config.js";
import { readSafetensorsHeader } from "../../../lib/model/safetensors-header.js";
import { TINY_MODEL as tiny } from "../../support/tiny-model.js";

const golden = fileURLToPath(new URL("../../fixtures/golden", import.meta.url));
const read = (file: string) => JSON.parse(readFileSync(`${golden}/${file}`, "utf8"));
const manifest = read("manifest.json") as {
  adapters: Record<string, { model: string; modules: { name: string; rank: number; scale: number }[] }>;
};

/** The golden models have no tokenizer, so they are not whole model folders. */
async function goldenModel(name: string) {
  const shape = parseModelConfig(read(`models/${name}/config.json`), "config.json");
  const tensors = await readSafetensorsHeader(`${golden}/models/${name}/model.safetensors`);
  const hasPooler = ["", "bert."].some((prefix) => tensors.has(`${prefix}pooler.dense.weight`));
  return { shape, hasPooler };
}

const names = (changes: Partial<LoraConfig>, prefix = "") =>
  resolveTargets({ ...DEFAULT_LORA, ...changes }, tiny, prefix).modules.map((module) => module.name);

describe("targets resolve as PEFT resolved them", () => {
  for (const [name, { model, modules }] of Object.entries(manifest.adapters)) {
    it(name, async () => {
      const file = `adapters/${name}/adapter_config.json`;
      const { lora } = parseAdapterConfig(read(file), file);
      expect(resolveTargets(lora, await goldenModel(model)).modules).toEqual(modules);
    });
  }

  it("below a prefix, for a model that was wrapped before PEFT saw it", async () => {
    const { lora } = parseAdapterConfig(read("adapters/qkv-wrapped/adapter_config.json"), "qkv-wrapped");
    const { modules } = resolveTargets(lora, await goldenModel("plain"), "model.");
    expect(modules).toEqual(manifest.adapters.qkv?.modules);
    const whole = ["model.encoder.layer.1.output.dense"];
    expect(names({ targetModules: whole }, "model.")).toEqual(["encoder.layer.1.output.dense"]);
    expect(() => names({ targetModules: whole })).toThrow();
  });
});

describe("targets", () => {
  it("are query, key and value with rank 8 and scale 2 by default", () => {
    const { modules, dropout } = resolveTargets(DEFAULT_LORA, tiny);
    expect(dropout).toBe(0);
    expect(modules).toHaveLength(6);
    expect(modules[0]).toEqual({ name: "encoder.layer.0.attention.self.query", rank: 8, scale: 2 });
  });

  it("of all-linear are every linear layer, the pooler too, in any case of letters", () => {
    expect(names({ targetModules: "All-Linear" })).toHaveLength(13);
    const noPooler = { ...tiny, hasPooler: false };
    expect(resolveTargets({ ...DEFAULT_LORA, targetModules: "all-linear" }, noPooler).modules).toHaveLength(
      12,
    );
  });

  it("leave out what exclude_modules matches", () => {
    expect(names({ excludeModules: ["layer.0.attention.self.key", "value"] })).toEqual([
      "encoder.layer.0.attention.self.query",
      "encoder.layer.1.attention.self.query",
      "encoder.layer.1.attention.self.key",
    ]);
    expect(names({ excludeModules: ".*layer\\.0.*" })).toHaveLength(3);
    expect(() => names({ excludeModules: ["query", "key", "value"] })).toThrow(/all 6 modules.*excluded/);
  });

  it("keep to layers_to_transform, by layers_pattern where there is one", () => {
    expect(names({ layersToTransform: 1 })).toHaveLength(3);
    expect(names({ layersToTransform: [0, 1], layersPattern: "layer" })).toHaveLength(6);
    expect(names({ targetModules: ["dense"], layersToTransform: [0] })).not.toContain("pooler.dense");
    expect(() => names({ layersToTransform: [0], layersPattern: ["block"] })).toThrow(/no module/);
    expect(() => names({ targetModules: ".*query", layersToTransform: [0] })).toThrow(
      expect.objectContaining({ code: "USAGE" }),
    );
  });

  it("that match nothing list the candidates", () => {
    for (const targetModules of [["q_proj", "v_proj"], "query", []]) {
      expect(() => names({ targetModules }), String(targetModules)).toThrow(
        expect.objectContaining({
          code: "USAGE",
          hint: expect.stringMatching(/attention\.self\.query.*encoder\.layer\.1\.output\.dense.*all-linear/),
        }),
      );
    }
  });

  it("of a list that no module has are told apart from those that one has", () => {
    const unmatched = (targetModules: LoraConfig["targetModules"]) =>
      unmatchedTargets({ ...DEFAULT_LORA, targetModules }, tiny);
    expect(unmatched(["query", "q_proj", "attention.self.key", "elf.key"])).toEqual(["q_proj", "elf.key"]);
    expect(unmatched("query")).toEqual([]);
  });

  it("are told where patterns and exclusions do nothing", () => {
    const idle = (changes: Partial<LoraConfig>) => idleSettings({ ...DEFAULT_LORA, ...changes }, tiny);
    const settings = {
      rankPattern: { query: 2, q_proj: 4 },
      alphaPattern: { "layer.1.attention.self.key": 3, "layer.9": 1 },
      excludeModules: ["layer.0.attention.self.query", "dense"],
    };
    expect(idle(settings)).toEqual([
      { option: "exclude_modules", name: "dense" },
      { option: "lora_rank_pattern", name: "q_proj" },
      { option: "lora_alpha_pattern", name: "layer.9" },
    ]);
    expect(idle({ excludeModules: ".*query" })).toEqual([]);
    expect(idle({ excludeModules: "query" })).toEqual([{ option: "exclude_modules", name: "query" }]);
    expect(idle({ targetModules: ".*(dense|LayerNorm)", excludeModules: ".*LayerNorm" })).toEqual([]);
  });

  it("take no layers beside all-linear, as in PEFT", () => {
    expect(() => names({ targetModules: "all-linear", layersToTransform: [0] })).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringContaining("found all-linear") }),
    );
  });

  it("tell the engine how to begin", () => {
    const init = (initLoraWeights: LoraConfig["initLoraWeights"], r = 8) =>
      resolveTargets({ ...DEFAULT_LORA, initLoraWeights, r }, tiny).init;
    expect(init(true)).toBeUndefined();
    expect(init(false)).toEqual({ kind: "uniform" });
    expect(init("gaussian")).toEqual({ kind: "gaussian" });
    expect(init("orthogonal")).toEqual({ kind: "orthogonal" });
    expect(init("pissa_niter_12")).toEqual({ kind: "pissa", iterations: 12 });
    expect(init("olora")).toEqual({ kind: "olora" });
    expect(() => init("orthogonal", 5)).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringMatching(/even ranks.*has 5/) }),
    );
  });

  for (const target of ["word_embeddings", "LayerNorm", "attention", "dropout"]) {
    it(`that hit ${target} are refused, not skipped`, () => {
      expect(() => names({ targetModules: ["query", target] })).toThrow(
        expect.objectContaining({
          code: "ADAPTER_UNSUPPORTED",
          message: expect.stringContaining("not a linear"),
        }),
      );
    });
  }

  it("are stored sorted, and all-linear as the names that it stands for", () => {
    const stored = (changes: Partial<LoraConfig>) => {
      const config = { ...DEFAULT_LORA, ...changes };
      return storedTargets(config, resolveTargets(config, tiny));
    };
    expect(stored({})).toEqual(["key", "query", "value"]);
    expect(stored({ targetModules: ["value", "key", "value"] })).toEqual(["key", "value"]);
    expect(stored({ targetModules: ".*query" })).toBe(".*query");
    const all = stored({ targetModules: "all-linear" });
    expect(all).toHaveLength(13);
    expect(all).toEqual([...all].sort());
  });
});
