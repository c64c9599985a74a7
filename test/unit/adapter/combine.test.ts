import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { describe, expect, it } from "vitest";
import { combineAdapters } from "../../../lib/adapter/combine.js";
import {
  type CombinationMethod,
  clampToQuantile,
  combineModule,
} from "../../../lib/adapter/combine-factors.js";
import { combineSettings, soleSource } from "../../../lib/adapter/combine-options.js";
import { combinedNorms } from "../../../lib/adapter/combined-norms.js";
import { dareMask, philox } from "../../../lib/adapter/dare-mask.js";
import {
  concatenate,
  distance,
  type Factors,
  inner,
  type LoraFactors,
  product,
} from "../../../lib/adapter/factors.js";
import { leadingEigenvectors } from "../../../lib/adapter/leading-eigenvectors.js";
import { truncateDense, truncateFactors } from "../../../lib/adapter/low-rank.js";
import { readStoredAdapter } from "../../../lib/adapter/stored-adapter.js";
import { keepLargest } from "../../../lib/adapter/task-arithmetic.js";
import { goldenPath } from "../../parity/golden.js";
import { type RawTensor, readRaw } from "../../support/quant-golden.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { mulberry32 } from "../../support/tiny-model.js";

const golden = fileURLToPath(new URL("../../fixtures/combine/", import.meta.url));
const adapter = (name: string) => join(golden, "adapters", name);

interface Case {
  adapters: string[];
  weights: number[];
  combination_type: CombinationMethod;
  density?: number;
  svd_rank?: number;
  svd_clamp?: number;
  majority_sign_method?: "total" | "frequency";
}
const manifest: { seed: number; cases: Record<string, Case>; rsloraScale: number; philox: number[] } =
  JSON.parse(readFileSync(join(golden, "manifest.json"), "utf8"));
const combined = readRaw(join(golden, "combined.safetensors"));

function doubles({ bytes }: RawTensor): number[] {
  return Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readDoubleLE(8 * i));
}

/** Tensors of a case by module. */
function expected(name: string, side: string): Map<string, number[]> {
  const found = [...combined].filter(([key]) => key.startsWith(`${name}|`) && key.endsWith(`|${side}`));
  return new Map(found.map(([key, tensor]) => [key.split("|")[1] as string, doubles(tensor)]));
}

function worst(actual: ArrayLike<number>, wanted: readonly number[]): number {
  if (actual.length !== wanted.length) return Number.POSITIVE_INFINITY;
  return wanted.reduce((most, value, i) => Math.max(most, Math.abs((actual[i] as number) - value)), 0);
}

// Both sides compute in float64, on entries of about 1; eigenvalues of D D^T give singular vectors to about 1e-9.
const TOLERANCE = 1e-8;

describe("PEFT's add_weighted_adapter", () => {
  const plain = Object.entries(manifest.cases).filter(([name]) => !/whole|clamped|rslora/.test(name));
  for (const [name, one] of plain) {
    it(name, async () => {
      const sources = await Promise.all(one.adapters.map((source) => readStoredAdapter(adapter(source))));
      const method = one.combination_type;
      const asked = combineSettings({
        method,
        density: one.density,
        svdRank: one.svd_rank,
        majoritySignMethod: one.majority_sign_method,
        ...(method.startsWith("dare") && { seed: manifest.seed }),
      });
      const settings = soleSource(asked, sources.length);
      const products = expected(name, "BA");
      const [as, bs] = [expected(name, "A"), expected(name, "B")];
      const modules = new Set(sources.flatMap((source) => [...source.modules.keys()]));
      expect(products.size + as.size).toBe(modules.size);
      for (const module of modules) {
        const having = sources.flatMap((source, index) => {
          const factors = source.modules.get(module);
          return factors === undefined ? [] : [{ index, weight: one.weights[index] as number, factors }];
        });
        const { factors } = combineModule(module, having, settings);
        const wanted = products.get(module);
        if (wanted !== undefined) expect(worst(product(factors), wanted), module).toBeLessThan(TOLERANCE);
        else {
          expect(worst(factors.a, as.get(module) as number[]), module).toBeLessThan(TOLERANCE);
          expect(worst(factors.b, bs.get(module) as number[]), module).toBeLessThan(TOLERANCE);
        }
      }
    });
  }
});

const tensor = (values: number[], rank: number, inputs: number, outputs: number): Factors => ({
  rank,
  inputs,
  outputs,
  a: Float64Array.from(values.slice(0, rank * inputs)),
  b: Float64Array.from(values.slice(rank * inputs)),
});

function randomFactors(rank: number, inputs: number, outputs: number, seed: number): Factors {
  const random = mulberry32(seed);
  return tensor(
    Array.from({ length: rank * (inputs + outputs) }, () => random() - 0.5),
    rank,
    inputs,
    outputs,
  );
}

describe("clamping", () => {
  it("is PEFT's svd_clamp", () => {
    for (const [module, b] of expected("svd-whole", "B")) {
      const a = expected("svd-whole", "A").get(module) as number[];
      const factors = { ...tensor([...a, ...b], 4, a.length / 4, b.length / 4) };
      clampToQuantile(factors, 0.9);
      expect(worst(factors.a, expected("svd-clamped", "A").get(module) as number[])).toBeLessThan(TOLERANCE);
      expect(worst(factors.b, expected("svd-clamped", "B").get(module) as number[])).toBeLessThan(TOLERANCE);
      expect(worst(factors.a, a)).toBeGreaterThan(0.01);
    }
  });
});

describe("the algebra of factors", () => {
  const [x, y] = [randomFactors(3, 9, 7, 1), randomFactors(5, 9, 7, 2)];

  it("sums exactly", () => {
    const [px, py] = [product(x), product(y)];
    const sum = [...px].map((value, i) => 2 * value - 0.5 * (py[i] as number));
    expect(worst(product(concatenate([x, y], [2, -0.5])), sum)).toBeLessThan(1e-14);
  });

  it("measures without forming a product", () => {
    const [px, py] = [product(x), product(y)];
    const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, v, i) => sum + v * (b[i] as number), 0);
    const { normX, normY, difference, cosine } = distance(x, y);
    expect(normX).toBeCloseTo(Math.sqrt(dot(px, px)), 12);
    expect(normY).toBeCloseTo(Math.sqrt(dot(py, py)), 12);
    expect(difference).toBeCloseTo(Math.hypot(...px.map((value, i) => value - (py[i] as number))), 12);
    expect(cosine).toBeCloseTo(dot(px, py) / (normX * normY), 12);
    expect(distance(x, x)).toMatchObject({ difference: 0 });
  });

  for (const [inputs, outputs, rank] of [
    [9, 7, 5],
    [7, 9, 5],
    [6, 8, 10], // more than either side
  ] as const) {
    it(`cuts a product of rank ${rank} in [${outputs}, ${inputs}] as a whole decomposition does`, () => {
      const factors = randomFactors(rank, inputs, outputs, 3);
      const dense = product(factors);
      for (const cut of [1, 3]) {
        const thin = truncateFactors(factors, cut);
        const whole = truncateDense(dense, outputs, inputs, cut);
        expect(worst(product(thin.factors), [...product(whole.factors)])).toBeLessThan(1e-10);
        const rest = Math.hypot(...product(thin.factors).map((value, i) => value - (dense[i] as number)));
        expect(thin.lost).toBeCloseTo(rest, 8);
        expect(whole.lost).toBeCloseTo(rest, 8);
        // Rows of A are orthonormal.
        expect(inner({ ...thin.factors, b: thin.factors.b }, thin.factors)).toBeCloseTo(
          Math.hypot(...thin.factors.b) ** 2,
          8,
        );
      }
      expect(truncateFactors(factors, 9).lost).toBeLessThan(1e-7);
    });
  }

  it("finds the leading eigenvectors of a large matrix as a whole decomposition does", () => {
    const [size, length, count] = [100, 140, 6];
    const random = mulberry32(4);
    const rows = Array.from({ length: size }, (_, i) =>
      // Slowly falling singular values, as those of a trimmed product are.
      Float64Array.from({ length }, () => (random() - 0.5) / (1 + 0.05 * i)),
    );
    const gram = Float64Array.from({ length: size * size }, (_, at) => {
      const [x, y] = [rows[Math.floor(at / size)], rows[at % size]] as [Float64Array, Float64Array];
      return x.reduce((sum, value, k) => sum + value * (y[k] as number), 0);
    });
    const { values, vectors } = leadingEigenvectors(gram, size, count);
    const whole = new EigenvalueDecomposition(Matrix.from1DArray(size, size, [...gram]), {
      assumeSymmetric: true,
    });
    for (let k = 0; k < count; k++) {
      expect(values[k]).toBeCloseTo(whole.realEigenvalues[size - 1 - k] as number, 10);
      const cosine = (vectors[k] as Float64Array).reduce(
        (sum, x, i) => sum + x * whole.eigenvectorMatrix.get(i, size - 1 - k),
        0,
      );
      expect(Math.abs(cosine)).toBeCloseTo(1, 10);
    }
    // Any vectors are eigenvectors of the identity.
    const identity = Float64Array.from({ length: size * size }, (_, at) => Number(at % (size + 1) === 0));
    for (const value of leadingEigenvectors(identity, size, 2).values) expect(value).toBeCloseTo(1, 12);
  });

  it("keeps the largest entries, among equals the first", () => {
    expect([...keepLargest(Float64Array.of(1, -3, 2, -2, 2), 0.6)]).toEqual([0, -3, 2, -2, 0]);
    expect([...keepLargest(Float64Array.of(1, 2), 0.4)]).toEqual([0, 0]);
    expect([...keepLargest(Float64Array.of(0, 0, 0, 1), 0.5)]).toEqual([0, 0, 0, 1]);
  });
});

describe("DARE's masks", () => {
  it("are drawn from Philox4x32-10", () => {
    const out = new Uint32Array(4);
    philox(Uint32Array.of(1, 2, 3, 4), [5, 6], out);
    expect([...out]).toEqual(manifest.philox);
    // Known answer of Random123's kat_vectors, all bits set.
    const ones = 0xffffffff;
    philox(Uint32Array.of(ones, ones, ones, ones), [ones, ones], out);
    expect([...out]).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  });

  it("keep their part, each on its own", () => {
    const count = 40_000;
    const draw = (seed: number, name: string, side: "A" | "B", source: number) => {
      const keep = dareMask(seed, name, side, 0.3)(source);
      return Uint8Array.from({ length: count }, (_, i) => Number(keep(i)));
    };
    const masks = [
      draw(1, "x", "A", 0),
      draw(2, "x", "A", 0),
      draw(1, "y", "A", 0),
      draw(1, "x", "B", 0),
      draw(1, "x", "A", 1),
    ];
    for (const [i, mask] of masks.entries()) {
      // Deviation sqrt(0.21 / n) = 0.0023 of a part, and as much of a part kept by two masks at once; five of each.
      expect(Math.abs(mask.reduce((sum, bit) => sum + bit, 0) / count - 0.3)).toBeLessThan(0.0115);
      for (const other of masks.slice(i + 1)) {
        const both = mask.reduce((sum, bit, k) => sum + bit * (other[k] as number), 0) / count;
        expect(Math.abs(both - 0.09)).toBeLessThan(0.0075);
      }
    }
    expect(draw(1, "x", "A", 0)).toEqual(masks[0]);
  });

  it("leave the mean of the sum where it was", async () => {
    const sources = [await readStoredAdapter(adapter("first")), await readStoredAdapter(adapter("second"))];
    const module = "encoder.layer.0.attention.self.query";
    const having = sources.map((source, index) => ({
      index,
      weight: 0.5,
      factors: source.modules.get(module) as never,
    }));
    const settings = (seed: number) =>
      combineSettings({ method: "dare_linear_svd", density: 0.5, svdRank: 16, seed });
    const exact = product(combineModule(module, having, combineSettings({})).factors);
    const mean = new Float64Array(exact.length);
    const runs = 200;
    for (let seed = 0; seed < runs; seed++) {
      const one = product(combineModule(module, having, settings(seed)).factors);
      for (let i = 0; i < mean.length; i++) mean[i] = (mean[i] as number) + (one[i] as number) / runs;
    }
    // An entry x of density 1/2 has deviation |x| for one mask, |x| / sqrt(200) for the mean: the norm of all of them.
    const spread = sources.map((source) => {
      const factors = source.modules.get(module) as never as Factors & { scale: number };
      return 0.5 * Math.hypot(...product(factors, factors.scale));
    });
    const deviation = Math.hypot(...spread) / Math.sqrt(runs);
    const off = Math.hypot(...mean.map((value, i) => value - (exact[i] as number)));
    expect(off).toBeGreaterThan(0.5 * deviation);
    expect(off).toBeLessThan(1.5 * deviation);
  });
});

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
