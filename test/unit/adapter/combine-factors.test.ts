import { describe, expect, it } from "vitest";
import { clampToQuantile, combineModule } from "../../../lib/adapter/combine-factors.js";
import { combineSettings, soleSource } from "../../../lib/adapter/combine-options.js";
import { product } from "../../../lib/adapter/factors.js";
import { readStoredAdapter } from "../../../lib/adapter/stored-adapter.js";
import { keepLargest } from "../../../lib/adapter/task-arithmetic.js";
import { combineAdapter, combined, factorsOf, manifest, worst } from "../../support/combine-golden.js";

// Both sides compute in float64, on entries of about 1; eigenvalues of D D^T give singular vectors to about 1e-9.
const TOLERANCE = 1e-8;

describe("PEFT's add_weighted_adapter", () => {
  const plain = Object.entries(manifest.cases).filter(([name]) => !/whole|clamped|rslora/.test(name));
  for (const [name, one] of plain) {
    it(name, async () => {
      const sources = await Promise.all(
        one.adapters.map((source) => readStoredAdapter(combineAdapter(source))),
      );
      const method = one.combination_type;
      const asked = combineSettings({
        method,
        density: one.density,
        svdRank: one.svd_rank,
        majoritySignMethod: one.majority_sign_method,
        ...(method.startsWith("dare") && { seed: manifest.seed }),
      });
      const settings = soleSource(asked, sources.length);
      const products = combined(name, "BA");
      const [as, bs] = [combined(name, "A"), combined(name, "B")];
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

describe("clamping", () => {
  it("is PEFT's svd_clamp", () => {
    for (const [module, b] of combined("svd-whole", "B")) {
      const a = combined("svd-whole", "A").get(module) as number[];
      const factors = { ...factorsOf([...a, ...b], 4, a.length / 4, b.length / 4) };
      clampToQuantile(factors, 0.9);
      expect(worst(factors.a, combined("svd-clamped", "A").get(module) as number[])).toBeLessThan(TOLERANCE);
      expect(worst(factors.b, combined("svd-clamped", "B").get(module) as number[])).toBeLessThan(TOLERANCE);
      expect(worst(factors.a, a)).toBeGreaterThan(0.01);
    }
  });
});

it("keeps the largest entries, among equals the first", () => {
  expect([...keepLargest(Float64Array.of(1, -3, 2, -2, 2), 0.6)]).toEqual([0, -3, 2, -2, 0]);
  expect([...keepLargest(Float64Array.of(1, 2), 0.4)]).toEqual([0, 0]);
  expect([...keepLargest(Float64Array.of(0, 0, 0, 1), 0.5)]).toEqual([0, 0, 0, 1]);
});
