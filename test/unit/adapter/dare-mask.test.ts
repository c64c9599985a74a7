import { describe, expect, it } from "vitest";
import { combineModule } from "../../../lib/adapter/combine-factors.js";
import { combineSettings } from "../../../lib/adapter/combine-options.js";
import { dareMask, philox } from "../../../lib/adapter/dare-mask.js";
import { type Factors, product } from "../../../lib/adapter/factors.js";
import { readStoredAdapter } from "../../../lib/adapter/stored-adapter.js";
import { combineAdapter as adapter, manifest } from "../../support/combine-golden.js";

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
