import { describe, expect, it } from "vitest";
import { loraConfig } from "../../../lib/train/options/lora-options.js";
import { resolveOptions, resolveTrainOptions } from "../../../lib/train/options/options.js";

const REQUIRED = { model_name_or_path: "m", dataset_name: "d.csv", output_dir: "out" };
const resolve = (given: Record<string, unknown>) => resolveOptions({ ...REQUIRED, ...given });

describe("LoRA options", () => {
  it("are PEFT's fields, as a command line and as a program give them", () => {
    const expected = {
      r: 8,
      loraAlpha: 16,
      excludeModules: ["layer.0.attention.self.key"],
      rankPattern: { query: 16, "layer.1.attention.self.value": 4 },
      alphaPattern: { value: 7.5 },
      layersToTransform: [0, 2],
      layersPattern: ["layer"],
      initLoraWeights: "gaussian",
    };
    const typed = resolve({
      exclude_modules: "layer.0.attention.self.key",
      lora_rank_pattern: '{"query": 16, "layer.1.attention.self.value": 4}',
      lora_alpha_pattern: '{"value": 7.5}',
      layers_to_transform: "0,2",
      layers_pattern: "layer",
      init_lora_weights: "Gaussian",
    });
    expect(loraConfig(typed)).toMatchObject(expected);
    const written = resolveTrainOptions({
      modelNameOrPath: "m",
      datasetName: "d.csv",
      outputDir: "out",
      excludeModules: ["layer.0.attention.self.key"],
      loraRankPattern: { query: 16, "layer.1.attention.self.value": 4 },
      loraAlphaPattern: { value: 7.5 },
      layersToTransform: [0, 2],
      layersPattern: ["layer"],
      initLoraWeights: "gaussian",
    });
    expect(loraConfig(written)).toEqual(loraConfig(typed));
  });

  it("are refused together where this version has not both", () => {
    expect(() => resolve({ use_dora: true, init_lora_weights: "pissa" })).toThrow(
      expect.objectContaining({
        code: "NOT_YET_AVAILABLE",
        message: expect.stringContaining("--use_dora with"),
      }),
    );
    expect(
      loraConfig(resolve({ use_dora: true, init_lora_weights: "loftq", load_in_4bit: true })),
    ).toMatchObject({
      useDora: true,
      initLoraWeights: "loftq",
    });
    expect(loraConfig(resolve({ init_lora_weights: "PiSSA_niter_4" })).initLoraWeights).toBe("pissa_niter_4");
  });

  it("take true and false for the beginning in every spelling", () => {
    for (const value of ["true", "True", true]) {
      expect(resolve({ init_lora_weights: value }).initLoraWeights).toBe(true);
    }
    expect(resolve({ init_lora_weights: "False" }).initLoraWeights).toBe(false);
  });

  for (const [given, message] of [
    [
      { lora_rank_pattern: "query=4" },
      "--lora_rank_pattern=query=4: expected a JSON object of whole numbers",
    ],
    [{ lora_rank_pattern: '{"query": 1.5}' }, "whole numbers"],
    [{ lora_rank_pattern: '{"query": 0}' }, "whole numbers"],
    [{ lora_alpha_pattern: '{"query": -1}' }, "numbers above 0"],
    [{ lora_alpha_pattern: { query: "8" } }, "numbers above 0"],
    [{ lora_rank_pattern: { "(": 4 } }, "--lora_rank_pattern: "],
    [{ layers_to_transform: "1.5" }, "--layers_to_transform=1.5"],
    [{ layers_pattern: "layer" }, "--layers_pattern needs --layers_to_transform"],
    [{ layers_to_transform: "1", lora_target_modules: "all-linear" }, "found all-linear"],
    [{ exclude_modules: "a,.*b" }, "--exclude_modules=a,.*b: expected names"],
    [{ init_lora_weights: "corda" }, "--init_lora_weights=corda: expected one of true, false"],
    [{ eva_rho: 2 }, "--eva_rho is for --init_lora_weights=eva"],
    [{ init_lora_weights: "eva", eva_rho: 0.5 }, "--eva_rho=0.5: expected"],
    [{ init_lora_weights: "eva", lora_bias: true }, "--lora_bias does not go with --init_lora_weights=eva"],
    [{ init_lora_weights: "pissa_niter_" }, "expected one of true, false"],
    [{ init_lora_weights: "pissa_niter_N" }, "expected one of true, false"],
    [{ init_lora_weights: "loftq" }, "--init_lora_weights=loftq needs weights that are quantised"],
    [
      { init_lora_weights: "gaussian", lora_bias: true },
      "--lora_bias does not go with --init_lora_weights=gaussian",
    ],
    [{ use_dora: true, lora_bias: true }, "--lora_bias does not go with --use_dora"],
    [{ init_lora_weights: "1" }, "--init_lora_weights=1"],
  ] as const) {
    it(`are refused with one line: ${JSON.stringify(given)}`, () => {
      expect(() => resolve(given)).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(message) }),
      );
    });
  }
});
