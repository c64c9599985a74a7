import { describe, expect, it } from "vitest";
import { loadEngine } from "../../lib/native/load.js";
import type { NativeEncoder } from "../../lib/native/types.js";
import { adapterPath, casePairs, caseTexts, goldenSpec, withGolden } from "../parity/golden.js";

const ENCODE = { adapter: false, normalize: true, microBatchTokens: 1024 };
const STEP = {
  seed: 1,
  step: 0,
  learningRate: 1e-2,
  weightDecay: 0,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  maxGradNorm: 0,
  microBatchTokens: 1024,
};
const spec = goldenSpec("qkv");
const texts = caseTexts.cuSeqlens.length - 1;
const encode = (encoder: NativeEncoder, adapter: string | boolean) =>
  encoder.encode(caseTexts, { ...ENCODE, adapter });

describe("several adapters in one native encoder", () => {
  it("are created, listed, replaced and removed by name", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      expect(loadEngine().info().engineVersion).toBeTruthy();
      await encoder.createAdapter(goldenSpec("all-linear"), 3, "tenant");
      const parameters = Object.values(await encoder.adapterWeights("tenant")).reduce(
        (n, w) => n + w.length,
        0,
      );
      expect(encoder.adapters()).toEqual([
        { name: "default", parameters: expect.any(Number), bytes: expect.any(Number) },
        { name: "tenant", parameters, bytes: 4 * parameters },
      ]);
      // Fresh adapters change nothing.
      expect(await encode(encoder, "tenant")).toEqual(await encode(encoder, false));
      const before = await encode(encoder, "default");
      expect(await encode(encoder, true)).toEqual(before);
      const missing = adapterPath("qkv-missing-key");
      await expect(encoder.loadAdapter(missing, spec)).rejects.toMatchObject({ code: "ADAPTER_MISMATCH" });
      expect(await encode(encoder, "default")).toEqual(before);
      await encoder.removeAdapter("tenant");
      expect(encoder.adapters().map(({ name }) => name)).toEqual(["default"]);
      await expect(encode(encoder, "tenant")).rejects.toMatchObject({
        code: "USAGE",
        message: 'encode: no adapter "tenant" is loaded',
      });
    }));

  it("are trained in turns as each would be alone, moments included", () =>
    withGolden("plain", {}, async (encoder) => {
      for (const [i, name] of ["a", "b"].entries()) await encoder.createAdapter(spec, i, name);
      for (const step of [0, 1, 2]) {
        for (const adapter of ["a", "b"]) await encoder.step(casePairs, { ...STEP, step, adapter });
      }
      const weights = await encoder.adapterWeights("b");
      await encoder.createAdapter(spec, 1);
      for (const step of [0, 1, 2]) await encoder.step(casePairs, { ...STEP, step });
      expect(await encoder.adapterWeights()).toEqual(weights);
      expect(await encoder.adapterWeights("a")).not.toEqual(weights);
    }));

  it("are trained in turns without waiting, and each is told its own steps", () =>
    withGolden("plain", {}, async (encoder) => {
      for (const name of ["a", "b", "waiting"]) await encoder.createAdapter(spec, name === "a" ? 0 : 1, name);
      const expected = [];
      for (const step of [0, 1, 2]) {
        for (const adapter of ["a", "b"]) await encoder.queueStep(casePairs, { ...STEP, step, adapter });
        expected.push(await encoder.step(casePairs, { ...STEP, step, adapter: "waiting" }));
      }
      const next = { ...STEP, step: 3, adapter: "b" };
      await expect(encoder.step(casePairs, next)).rejects.toMatchObject({ code: "USAGE" });
      expect(await encoder.stepResults("b")).toEqual(expected);
      expect(await encoder.stepResults("b")).toEqual([]);
      expect(await encoder.adapterWeights("b")).toEqual(await encoder.adapterWeights("waiting"));
      expect(await encoder.stepResults("a")).toHaveLength(3);
      await expect(encoder.stepResults()).rejects.toMatchObject({ code: "USAGE" });
    }));

  it("refuses a choice of adapters that does not fit the texts", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const choose = (adapterOfText: unknown, adapters: unknown = ["default"]) =>
        encoder.encode(caseTexts, { ...ENCODE, adapters, adapterOfText } as never);
      const usage = (message: string) => ({ code: "USAGE", message: expect.stringContaining(message) });
      await expect(choose(new Int32Array(3))).rejects.toMatchObject(usage(`of ${texts} texts, got 3`));
      await expect(choose(new Int32Array(texts).fill(1))).rejects.toMatchObject(usage("there are 1 names"));
      await expect(choose(new Int32Array(texts).fill(-2))).rejects.toMatchObject(usage("adapter -2"));
      expect(() => choose([0])).toThrow("adapterOfText must be an Int32Array");
      expect(() => choose(new Int32Array(texts), "default")).toThrow("adapters must be an array");
      expect(() => choose(new Int32Array(texts), [1])).toThrow("adapters must be a string");
      expect(await choose(new Int32Array(texts).fill(-1))).toEqual(await encode(encoder, false));
    }));

  it("merges one into weights that are counted, listed and given back", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const before = encoder.memory(1024, false);
      const listed = encoder.adapters();
      const merge = await encoder.mergeAdapter("default", "merged", false);
      expect(merge).toEqual({ modules: spec.modules.length, bytes: expect.any(Number) });
      expect(encoder.adapters()).toEqual([
        ...listed,
        { name: "merged", parameters: 0, bytes: merge.bytes, mergedFrom: "default" },
      ]);
      expect(encoder.memory(1024, false)).toEqual({ ...before, adapter: before.adapter + merge.bytes });
      for (const adapter of ["default", "merged"]) {
        await expect(encoder.step(casePairs, { ...STEP, adapter })).rejects.toMatchObject({
          code: "USAGE",
          message: `step: the adapter "${adapter}" is merged into the base`,
        });
      }
      expect(() => encoder.mergeAdapter("default", "again", 1 as never)).toThrow("exact must be a boolean");
      await encoder.removeAdapter("merged");
      expect(encoder.memory(1024, false)).toEqual(before);
    }));

  it("counts each adapter's own bytes, and plans for one as if it were alone", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const alone = encoder.memory(1024, true);
      const base = encoder.memory(1024, false);
      for (let i = 0; i < 20; i++) await encoder.loadAdapter(adapterPath("qkv"), spec, `tenant-${i}`);
      const all = encoder.memory(1024, false);
      const own = encoder.adapters()[0]?.bytes as number;
      expect(all).toEqual({ ...base, adapter: 21 * own });
      expect(encoder.memory(1024, true, "default")).toEqual(alone);
      expect(() => encoder.memory(1024, true, "nobody")).toThrow('no adapter "nobody" is loaded');
    }));
});
