import { describe, expect, it } from "vitest";
import type { ExampleBatch, NativeEncoder } from "../../lib/native/types.js";
import { expectTensors, maxAbs, relativeDifference } from "./distance.js";
import { casePairs, goldenPath, manifest, pairBatch, range, textBatch, withGolden } from "./golden.js";
import { readTensors } from "./safetensors.js";

/** Losses of the reference in fp32 are up to 2e-7 from float64 (`noise.loss`). */
const LOSS_TOLERANCE = 1e-6;
/** Per tensor, max |difference| / max |gradient|; fp32 autograd is up to 3e-6 from float64 (`noise.gradients`). */
const GRADIENT_TOLERANCE = 1e-4;
/** The same sums in another order: a few times the noise of one. */
const ORDER_TOLERANCE = 2e-5;

function gradients(encoder: NativeEncoder, batch: ExampleBatch = casePairs, microBatchTokens = 4096) {
  return encoder.gradients(batch, { seed: 1, step: 0, microBatchTokens });
}

describe("gradients", () => {
  for (const [name, golden] of Object.entries(manifest.adapters)) {
    it(`equal autograd through PEFT: ${name}`, () =>
      withGolden(golden.model, { adapter: name }, async (encoder) => {
        const found = await gradients(encoder);
        expect(Math.abs(found.loss - golden.loss)).toBeLessThan(LOSS_TOLERANCE);
        const expected = readTensors(goldenPath(`gradients/${name}.safetensors`)).floats;
        // Autograd has no gradient at all for what the loss does not reach, and neither has the engine.
        for (const key of golden.unreached) delete expected[key];
        expectTensors(found.gradients, expected, GRADIENT_TOLERANCE, relativeDifference);
      }));
  }

  it("are of A alone zero where B is zero", () =>
    withGolden("plain", { adapter: "fresh" }, async (encoder) => {
      const found = await gradients(encoder);
      for (const [key, gradient] of Object.entries(found.gradients)) {
        if (key.includes("lora_A")) expect(maxAbs(gradient), key).toBe(0);
        else expect(maxAbs(gradient), key).toBeGreaterThan(0);
      }
    }));

  it("count what is trained as PEFT does", async () => {
    for (const [name, golden] of Object.entries(manifest.adapters)) {
      await withGolden(golden.model, { adapter: name }, async (encoder) => {
        const { trainableParameters, baseParameters } = encoder.info();
        expect(trainableParameters, name).toBe(golden.trainableParameters);
        expect(baseParameters + trainableParameters, name).toBe(golden.allParameters);
      });
    }
  });
});

describe("the gradient of a batch", () => {
  for (const microBatchTokens of [1, 65, 300, 1_000_000]) {
    it(`is the whole batch's in groups of ${microBatchTokens} tokens`, () =>
      withGolden("plain", { adapter: "all-linear" }, async (encoder) => {
        const whole = await gradients(encoder);
        const split = await gradients(encoder, casePairs, microBatchTokens);
        expect(Math.abs(split.loss - whole.loss)).toBeLessThan(LOSS_TOLERANCE);
        expectTensors(split.gradients, whole.gradients, ORDER_TOLERANCE, relativeDifference);
      }));
  }

  it("does not depend on the order of pairs, nor of the two texts in one", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const straight = await gradients(encoder);
      const backwards = range(0, manifest.casePairs).reverse();
      const reordered = await gradients(encoder, pairBatch(backwards));
      const swapped = await gradients(encoder, {
        ...textBatch(range(0, manifest.casePairs).flatMap((i) => [2 * i + 1, 2 * i])),
        labels: casePairs.labels,
        textsPerExample: 2,
      });
      for (const other of [reordered, swapped]) {
        expect(Math.abs(other.loss - straight.loss)).toBeLessThan(LOSS_TOLERANCE);
        expectTensors(other.gradients, straight.gradients, ORDER_TOLERANCE, relativeDifference);
      }
    }));

  it("is the mean of its pairs' gradients", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const whole = await gradients(encoder);
      const sums: Record<string, Float32Array> = {};
      for (const pair of range(0, manifest.casePairs)) {
        const one = await gradients(encoder, pairBatch([pair]));
        for (const [key, gradient] of Object.entries(one.gradients)) {
          const sum = sums[key] ?? new Float32Array(gradient.length);
          sums[key] = sum.map((total, i) => total + (gradient[i] as number) / manifest.casePairs);
        }
      }
      expectTensors(sums, whole.gradients, ORDER_TOLERANCE, relativeDifference);
    }));

  it("leaves the adapter as it was", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const before = await encoder.adapterWeights();
      await gradients(encoder);
      expectTensors(await encoder.adapterWeights(), before, 0, relativeDifference);
    }));
});
