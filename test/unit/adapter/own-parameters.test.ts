import { describe, expect, it } from "vitest";
import { formatAdapterConfig, parseAdapterConfig } from "../../../lib/adapter/config.js";
import { DEFAULT_LORA, type LoraConfig } from "../../../lib/adapter/lora-config.js";
import { unmatchedModulesToSave } from "../../../lib/adapter/own-parameters.js";
import { resolveTargets } from "../../../lib/adapter/targets.js";
import { TINY_MODEL as model } from "../../support/tiny-model.js";

function resolve(changes: Partial<LoraConfig>) {
  const { modules, parameters = [] } = resolveTargets(
    { ...DEFAULT_LORA, targetModules: ["query", "value"], ...changes },
    model,
  );
  return { modules: modules.map(({ name }) => name), keys: parameters.map(({ key }) => key), parameters };
}

describe("an adapter's own parameters", () => {
  it("are none unless they are asked for", () => {
    expect(resolveTargets(DEFAULT_LORA, model)).not.toHaveProperty("parameters");
  });

  it("are the biases of what LoRA wraps, below its base_layer", () => {
    expect(resolve({ bias: "lora_only" }).parameters).toEqual(
      [0, 1].flatMap((layer) =>
        ["query", "value"].map((matrix) => ({
          name: `encoder.layer.${layer}.attention.self.${matrix}.bias`,
          key: `base_model.model.encoder.layer.${layer}.attention.self.${matrix}.base_layer.bias`,
        })),
      ),
    );
  });

  it("are all biases, the pooler's too", () => {
    const { keys } = resolve({ bias: "all" });
    expect(keys).toHaveLength(2 + 2 * 8);
    expect(keys).toContain("base_model.model.encoder.layer.1.attention.self.key.bias");
    expect(keys).toContain("base_model.model.pooler.dense.bias");
    expect(keys).toContain("base_model.model.embeddings.LayerNorm.bias");
  });

  it("are modules by the ends of their names, with all that is in them", () => {
    expect(resolve({ modulesToSave: ["1.output", "word_embeddings"] }).keys).toEqual(
      [
        "embeddings.word_embeddings.weight",
        "encoder.layer.1.output.dense.weight",
        "encoder.layer.1.output.dense.bias",
        "encoder.layer.1.output.LayerNorm.weight",
        "encoder.layer.1.output.LayerNorm.bias",
      ].map((name) => `base_model.model.${name}`),
    );
  });

  it("are not wrapped by LoRA, and have their bias once", () => {
    const { modules, keys } = resolve({ modulesToSave: ["layer.0"], bias: "lora_only" });
    expect(modules).toEqual(["query", "value"].map((name) => `encoder.layer.1.attention.self.${name}`));
    expect(keys.filter((key) => key.includes("layer.0") && key.endsWith(".bias"))).toHaveLength(8);
    expect(keys.filter((key) => key.endsWith(".base_layer.bias"))).toHaveLength(2);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it("are warned of where no module has the name", () => {
    const config = { ...DEFAULT_LORA, modulesToSave: ["LayerNorm", "classifier"] };
    expect(unmatchedModulesToSave(config, model)).toEqual(["classifier"]);
  });

  it("are written to adapter_config.json as PEFT writes them", () => {
    const config: LoraConfig = { ...DEFAULT_LORA, bias: "all", modulesToSave: ["pooler", "LayerNorm"] };
    const text = formatAdapterConfig(config, resolveTargets(config, model), "base");
    expect(JSON.parse(text)).toMatchObject({ bias: "all", modules_to_save: ["LayerNorm", "pooler"] });
    expect(parseAdapterConfig(JSON.parse(text), "x").lora).toMatchObject({
      bias: "all",
      modulesToSave: ["LayerNorm", "pooler"],
    });
    expect(() => parseAdapterConfig({ peft_type: "LORA", modules_to_save: "pooler" }, "x")).toThrow(
      expect.objectContaining({ message: expect.stringContaining("expected modules_to_save to be a list") }),
    );
  });
});
