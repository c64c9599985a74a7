import { describe, expect, it } from "vitest";
import { formatAdapterConfig, parseAdapterConfig } from "../../../lib/adapter/config.js";
import { DEFAULT_LORA } from "../../../lib/adapter/lora-config.js";
import { resolveTargets } from "../../../lib/adapter/targets.js";
import { TINY_MODEL as tiny } from "../../support/tiny-model.js";

const parse = (changes: Record<string, unknown>) =>
  parseAdapterConfig({ peft_type: "LORA", ...changes }, "a/adapter_config.json");
const format = (changes = {}) => {
  const lora = { ...DEFAULT_LORA, ...changes };
  return formatAdapterConfig(lora, resolveTargets(lora, tiny), "models/e5");
};

describe("reading adapter_config.json", () => {
  it("takes PEFT's defaults, not the article's", () => {
    expect(parse({}).lora).toEqual({
      r: 8,
      loraAlpha: 8,
      loraDropout: 0,
      targetModules: ["query", "value"],
      excludeModules: null,
      rankPattern: {},
      alphaPattern: {},
      useRslora: false,
      layersToTransform: null,
      layersPattern: null,
      initLoraWeights: true,
      useDora: false,
      loraBias: false,
      bias: "none",
      modulesToSave: null,
    });
  });

  it("accepts everything that leaves the maths alone", () => {
    const fields = {
      auto_mapping: { base_model_class: "BertModel" },
      bias: "none",
      eva_config: { rho: 2 },
      inference_mode: true,
      init_lora_weights: "gaussian",
      megatron_core: "megatron.core",
      modules_to_save: [],
      peft_version: "0.21.2",
      qalora_group_size: 16,
      task_type: "FEATURE_EXTRACTION",
      use_dora: true,
      velora_config: null,
    };
    expect(parse(fields).unknownKeys).toEqual([]);
  });

  for (const [changes, named] of [
    [{ peft_type: "IA3" }, "IA3"],
    [{ bias: "boft_only" }, "bias"],
    [{ layer_replication: [[0, 2]] }, "layer_replication"],
    [{ fan_in_fan_out: true }, "fan_in_fan_out"],
    [{ trainable_token_indices: [1] }, "trainable_token_indices"],
    [{ megatron_config: { a: 1 } }, "megatron_config"],
    [{ target_parameters: ["w"] }, "target_parameters"],
    [{ use_qalora: true }, "use_qalora"],
    [{ kasa_config: { beta: 1 } }, "kasa_config"],
    [{ init_lora_weights: "pissa_niter_16" }, "pissa_niter_16"],
    [{ init_lora_weights: "OLoRA", use_dora: true }, "OLoRA"],
    [{ init_lora_weights: "corda" }, "corda"],
    [{ init_lora_weights: "corda" }, "corda"],
    [{ init_lora_weights: "lora_ga" }, "lora_ga"],
  ] as const) {
    it(`refuses ${JSON.stringify(changes)} by name`, () => {
      expect(() => parse(changes)).toThrow(
        expect.objectContaining({ code: "ADAPTER_UNSUPPORTED", message: expect.stringContaining(named) }),
      );
    });
  }

  for (const changes of [
    { r: 0 },
    { r: 1.5 },
    { r: "8" },
    { lora_alpha: 0 },
    { lora_alpha: -1 },
    { lora_dropout: 1 },
    { target_modules: [1] },
    { target_modules: {} },
    { rank_pattern: { query: 0 } },
    { alpha_pattern: ["query"] },
    { layers_to_transform: "1" },
    { layers_to_transform: [-1] },
    { use_rslora: "yes" },
    { use_dora: 1 },
    { lora_bias: "no" },
  ]) {
    it(`refuses ${JSON.stringify(changes)} as corrupt`, () => {
      expect(() => parse(changes)).toThrow(expect.objectContaining({ code: "MODEL_CORRUPT" }));
    });
  }

  it("keeps keys that nobody knows, and names those that say something", () => {
    const { unknownKeys, raw } = parse({ from_the_future: 3, use_other: false });
    expect(unknownKeys).toEqual(["from_the_future"]);
    expect(raw).toMatchObject({ from_the_future: 3, use_other: false });
  });
});

describe("writing adapter_config.json", () => {
  it("gives the keys of PEFT 0.13, sorted, as these bytes", () => {
    expect(format()).toBe(`{
  "alpha_pattern": {},
  "auto_mapping": null,
  "base_model_name_or_path": "models/e5",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layer_replication": null,
  "layers_pattern": null,
  "layers_to_transform": null,
  "loftq_config": {},
  "lora_alpha": 16,
  "lora_dropout": 0,
  "megatron_config": null,
  "megatron_core": "megatron.core",
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 8,
  "rank_pattern": {},
  "revision": null,
  "target_modules": [
    "key",
    "query",
    "value"
  ],
  "task_type": "FEATURE_EXTRACTION",
  "use_dora": false,
  "use_rslora": false
}`);
  });

  it("is sorted whatever the options, and reads back as what was written", () => {
    for (const changes of [
      { targetModules: "all-linear", excludeModules: ["pooler.dense"], useRslora: true },
      { targetModules: [".dense", "query"], layersToTransform: [1], layersPattern: "layer" },
      { rankPattern: { query: 2 }, alphaPattern: { key: 3 }, loraDropout: 0.25, r: 4, loraAlpha: 7 },
    ]) {
      const lora = { ...DEFAULT_LORA, ...changes };
      const json = JSON.parse(format(changes));
      expect(Object.keys(json)).toEqual(Object.keys(json).sort());
      const { modules } = resolveTargets(parseAdapterConfig(json, "x").lora, tiny);
      expect(modules).toEqual(resolveTargets(lora, tiny).modules);
    }
  });

  it("leaves exclusions out of all-linear, which is written as the names that are left", () => {
    const json = JSON.parse(format({ targetModules: "all-linear", excludeModules: ["dense"] }));
    expect(json.exclude_modules).toBeUndefined();
    expect(json.target_modules).toHaveLength(6);
    const listed = JSON.parse(format({ targetModules: ["query", "dense"], excludeModules: ["dense"] }));
    expect(listed.exclude_modules).toEqual(["dense"]);
  });

  it("says how it began in words that every PEFT reads", () => {
    for (const [init, written] of [
      [true, true],
      [false, false],
      ["gaussian", "gaussian"],
      ["orthogonal", true],
      ["loftq", true],
    ] as const) {
      expect(JSON.parse(format({ initLoraWeights: init })).init_lora_weights).toBe(written);
    }
  });

  it("says what the adapter computes, and finds again what it began with", () => {
    const json = JSON.parse(format({ useDora: true, useRslora: true }));
    expect(json).toMatchObject({ use_dora: true, use_rslora: true });
    expect(json.lora_bias).toBeUndefined();
    expect(JSON.parse(format({ loraBias: true })).lora_bias).toBe(true);
    expect(parse({ use_dora: true }).lora.useDora).toBe(true);
    expect(parse({ lora_bias: true }).lora.loraBias).toBe(true);
    for (const [written, init] of [
      ["PiSSA", "pissa"],
      ["olora", "olora"],
      ["gaussian", true],
      ["orthogonal", true],
    ] as const) {
      expect(parse({ init_lora_weights: written }).lora.initLoraWeights).toBe(init);
    }
  });

  it("is of plain LoRA with twice the rank and the same scale where it began with parts of the base", () => {
    for (const useRslora of [false, true]) {
      const changes = {
        initLoraWeights: "pissa" as const,
        r: 4,
        loraAlpha: 6,
        useRslora,
        rankPattern: { query: 2 },
        alphaPattern: { "layer.1.attention.self.key": 10 },
      };
      const json = JSON.parse(format(changes));
      expect(json).toMatchObject({ r: 8, init_lora_weights: true, rank_pattern: { query: 4 } });
      const trained = resolveTargets({ ...DEFAULT_LORA, ...changes }, tiny).modules;
      const stored = resolveTargets(parseAdapterConfig(json, "x").lora, tiny).modules;
      expect(stored.map(({ name, rank }) => [name, rank / 2])).toEqual(
        trained.map(({ name, rank }) => [name, rank]),
      );
      for (const [i, { scale }] of stored.entries()) expect(scale).toBeCloseTo(trained[i]?.scale ?? 0, 12);
    }
  });

  // PEFT takes the first key that matches, in the order of the file; its own save_pretrained sorts them, so that an
  // adapter whose order mattered no longer loads there.
  for (const keys of [
    ["value", "layer.0.attention.self.value"],
    ["layer.0.attention.self.value", "value"],
  ] as const) {
    it(`keeps the order of patterns, of which the first counts: ${keys.join(", ")}`, () => {
      const changes = {
        targetModules: ["value"],
        rankPattern: Object.fromEntries(keys.map((key) => [key, key === "value" ? 4 : 2])),
        alphaPattern: Object.fromEntries(keys.map((key) => [key, key === "value" ? 12 : 2])),
      };
      const { lora } = parseAdapterConfig(JSON.parse(format(changes)), "x");
      expect(Object.keys(lora.rankPattern)).toEqual(keys);
      const first = keys[0] === "value" ? { rank: 4, scale: 3 } : { rank: 2, scale: 1 };
      expect(resolveTargets(lora, tiny).modules).toEqual([
        { name: "encoder.layer.0.attention.self.value", ...first },
        { name: "encoder.layer.1.attention.self.value", rank: 4, scale: 3 },
      ]);
    });
  }
});
