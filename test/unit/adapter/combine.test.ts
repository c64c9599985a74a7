import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { combineAdapters } from "../../../lib/adapter/combine.js";
import { combineModule } from "../../../lib/adapter/combine-factors.js";
import { combineSettings } from "../../../lib/adapter/combine-options.js";
import { combinedNorms } from "../../../lib/adapter/combined-norms.js";
import { type LoraFactors, product } from "../../../lib/adapter/factors.js";
import { readStoredAdapter } from "../../../lib/adapter/stored-adapter.js";
import { goldenPath } from "../../parity/golden.js";
import { combineAdapter as adapter, manifest, randomFactors, worst } from "../../support/combine-golden.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

describe("combineAdapters", () => {
  const temporary = temporaryFolder();

  it("writes an adapter that is the exact sum, whatever ranks, scales and targets its sources have", async () => {
    const seen: number[] = [];
    const weighted = [
      { adapter: adapter("first"), weight: 0.7 },
      adapter("second"),
      { adapter: adapter("third"), weight: -1.5 },
    ];
    const result = await combineAdapters(weighted, temporary.path("cat"), {
      onProgress: (done, total) => seen.push(done / total),
    });
    expect(seen.at(-1)).toBe(1);
    expect(result).toMatchObject({
      method: "cat",
      weights: [0.7, 1, -1.5],
      rank: 11,
      relativeDifference: 0,
      warnings: [],
    });
    const [sum, ...sources] = await Promise.all(
      [temporary.path("cat"), ...["first", "second", "third"].map(adapter)].map((name) =>
        readStoredAdapter(name),
      ),
    );
    expect([...(sum?.modules.keys() ?? [])]).toHaveLength(8);
    for (const [module, factors] of sum?.modules ?? []) {
      expect(factors.scale).toBe(1);
      const wanted = new Float64Array(factors.inputs * factors.outputs);
      for (const [i, source] of sources.entries()) {
        const one = source.modules.get(module);
        if (one === undefined) continue;
        const delta = product(one, one.scale * ([0.7, 1, -1.5][i] as number));
        for (let k = 0; k < wanted.length; k++) wanted[k] = (wanted[k] as number) + (delta[k] as number);
      }
      // A times weight and scale is rounded to float32 once: 6e-8 of entries of up to 3.
      expect(worst(product(factors), [...wanted]), module).toBeLessThan(1e-6);
    }
  });

  it("tells how far PEFT's linear is from the sum, and what a rank loses", async () => {
    const sources = [adapter("first"), adapter("second")];
    const linear = await combineAdapters(sources, temporary.path("linear"), { method: "linear" });
    expect(linear.relativeDifference).toBeGreaterThan(0.5); // cross terms as large as the terms themselves
    const svd = await combineAdapters(sources, temporary.path("svd"), { method: "svd", svdRank: 3 });
    expect(svd.truncationError).toBeGreaterThan(0.1);
    expect(svd.relativeDifference).toBeCloseTo(svd.truncationError as number, 6);
    const whole = await combineAdapters(sources, temporary.path("whole"), { method: "svd", svdRank: 8 });
    expect(whole.truncationError).toBeLessThan(1e-7);
    expect(whole.relativeDifference).toBeLessThan(1e-7);
  });

  it("tells a sum of zero from one that is small, and from a result that is not zero", () => {
    const one = { ...randomFactors(4, 30, 20, 5), scale: 2 };
    const near = { ...one, b: one.b.map((value) => value * (1 + 1e-5)) };
    const otherwise = { ...one, a: one.a.map((value) => 2 * value), b: one.b.map((value) => value / 2) };
    const less = (other: LoraFactors, method: "cat" | "svd" | "linear") => {
      const sources = [one, other].map((factors, index) => ({ index, weight: 1 - 2 * index, factors }));
      return combinedNorms([combineModule("x", sources, combineSettings({ method }))]);
    };
    const norm = Math.hypot(...product(one, one.scale));
    for (const method of ["cat", "svd"] as const) {
      expect(less(otherwise, method)).toMatchObject({ norm: 0, relativeDifference: 0 });
      // Known to 1e-8 of the terms, a thousandth of it.
      expect(Math.abs(less(near, method).norm / (1e-5 * norm) - 1)).toBeLessThan(0.05);
    }
    expect(less(otherwise, "svd").truncationError).toBe(0);
    expect(less(otherwise, "linear")).toMatchObject({ norm: 0, relativeDifference: undefined });
  });

  it("gives rsLoRA's own strength, where PEFT multiplies by the root of the rank", async () => {
    expect(manifest.rsloraScale).toBeCloseTo(Math.sqrt(3), 12);
    const result = await combineAdapters([adapter("third")], temporary.path("rslora"), { method: "linear" });
    expect(result.relativeDifference).toBeLessThan(1e-7);
    const config = JSON.parse(readFileSync(temporary.path("rslora", "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({ use_rslora: false, r: 3, lora_alpha: 3 });
    expect(config.rank_pattern).toEqual({
      "encoder.layer.0.attention.self.key": 2,
      "encoder.layer.1.attention.self.key": 2,
    });
    expect(config.alpha_pattern).toEqual(config.rank_pattern);
  });

  const copy = (name: string, change: (config: Record<string, unknown>) => void): string => {
    const folder = temporary.path(name);
    cpSync(adapter("first"), folder, { recursive: true });
    const file = join(folder, "adapter_config.json");
    const config = JSON.parse(readFileSync(file, "utf8"));
    change(config);
    writeFileSync(file, JSON.stringify(config));
    return folder;
  };

  it("refuses what cannot be combined, and leaves nothing", async () => {
    const refusal = (sources: unknown, options: object, error: object) =>
      expect(combineAdapters(sources as string[], temporary.path("no"), options)).rejects.toMatchObject(
        error,
      );
    const two = [adapter("first"), adapter("second")];
    await refusal([], {}, { code: "USAGE" });
    await refusal([""], {}, { code: "USAGE" });
    await refusal(
      [{ adapter: adapter("first"), weight: Number.NaN }],
      {},
      { code: "USAGE", message: expect.stringMatching(/NaN/) },
    );
    await refusal(
      two,
      { method: "mean" },
      { code: "USAGE", message: expect.stringMatching(/one of cat, svd/) },
    );
    await refusal(
      two,
      { method: "ties" },
      { code: "USAGE", message: expect.stringMatching(/ties needs a density/) },
    );
    await refusal(
      two,
      { method: "ties", density: 0 },
      { code: "USAGE", message: expect.stringMatching(/above 0 and at most 1/) },
    );
    await refusal(
      two,
      { density: 0.5 },
      { code: "USAGE", message: expect.stringMatching(/density says nothing to the method cat/) },
    );
    await refusal(
      two,
      { method: "linear", svdRank: 3 },
      { code: "USAGE", message: expect.stringMatching(/svd_rank says nothing/) },
    );
    await refusal(
      [...two, adapter("third")],
      { method: "linear" },
      { code: "ADAPTER_MISMATCH", message: expect.stringMatching(/ranks/) },
    );
    const rank = copy("rank", (config) => Object.assign(config, { r: 5 }));
    await refusal(
      [rank],
      {},
      { code: "ADAPTER_MISMATCH", message: expect.stringMatching(/asks for rank 5/) },
    );
    await refusal(two, { signal: AbortSignal.abort() }, { code: "ABORTED" });
    await expect(combineAdapters(two, adapter("first"))).rejects.toMatchObject({ code: "OUTPUT_EXISTS" });
  });

  it("sums biases on B exactly, where the method is exact", async () => {
    const [biased, plain] = [goldenPath("adapters/lora-bias"), goldenPath("adapters/query-value")];
    const sources = [
      { adapter: biased, weight: 0.5 },
      { adapter: plain, weight: 2 },
      { adapter: biased, weight: -2 },
    ];
    const { modules: wanted } = await readStoredAdapter(biased);
    for (const method of ["cat", "svd"] as const) {
      const out = temporary.path(`biased-${method}`);
      await combineAdapters(sources, out, { method });
      const { config, modules } = await readStoredAdapter(out);
      expect(config.lora).toMatchObject({ loraBias: true });
      for (const [name, { bias, scale, outputs }] of modules) {
        const { scale: theirs = 0, bias: values = new Float64Array(outputs) } = wanted.get(name) ?? {};
        expect(scale).toBe(1);
        const sum = Array.from(values, (value) => Math.fround(-1.5 * theirs * value));
        // Two roundings of sums in double precision, then one to float32.
        expect(worst(bias as Float64Array, sum), name).toBeLessThan(1e-6);
        expect(sum.some((value) => Math.abs(value) > 1e-3)).toBe(wanted.has(name));
      }
    }
    const alone = temporary.path("biased-alone");
    await combineAdapters([{ adapter: biased, weight: 3 }], alone, { method: "linear" });
    const { modules } = await readStoredAdapter(alone);
    for (const [name, { bias, scale }] of wanted) {
      const sum = Array.from(bias as Float64Array, (value) => 3 * scale * value);
      expect(worst(modules.get(name)?.bias as Float64Array, sum)).toBeLessThan(1e-5);
    }
  });

  it.each([
    ["adapters/dora", {}, /has use_dora: its magnitudes stretch/],
    ["own/bias-all", {}, /has bias "all": \S+\.bias takes the place of the base's/],
    ["own/lora-only", {}, /has bias "lora_only"/],
    ["own/norms", {}, /has modules_to_save: \S*LayerNorm\.\w+ takes the place of the base's/],
    ["init/loftq", {}, /has init_lora_weights "loftq": it runs over a base that PEFT quantises/],
    ["adapters/lora-bias", { method: "ties", density: 0.5 }, /has lora_bias: ties is for matrices alone/],
    ["adapters/pissa", {}, /init_lora_weights is "pissa"/],
  ] as const)("refuses what is no sum of A and B by name: %s", async (name, options, message) => {
    const sources = [goldenPath(name), goldenPath(name)];
    await expect(combineAdapters(sources, temporary.path("none"), options)).rejects.toMatchObject({
      code: "ADAPTER_UNSUPPORTED",
      message: expect.stringMatching(message),
    });
    expect(existsSync(temporary.path("none"))).toBe(false);
  });

  it("warns of adapters that name other base models", async () => {
    const other = copy("other", (config) => Object.assign(config, { base_model_name_or_path: "large" }));
    const { warnings } = await combineAdapters([adapter("first"), other], temporary.path("bases"));
    expect(warnings).toEqual([expect.stringMatching(/tiny and large/)]);
  });
});
