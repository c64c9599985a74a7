import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { loadEngine } from "../../lib/native/load.js";
import type { ExampleBatch, NativeEncoder } from "../../lib/native/types.js";
import { expectTensors, maxAbs, maxDifference, relativeDifference } from "./distance.js";
import { casePairs, goldenPath, goldenShape, manifest, pairBatch, pick, range } from "./golden.js";
import { readTensors } from "./safetensors.js";

interface FullManifest {
  models: Record<string, { loss: number; keyBias: number; noise: { loss: number; gradients: number } }>;
  run: {
    learningRate: number;
    weightDecay: number;
    maxGradNorm: number;
    steps: number;
    records: { loss: number; gradNorm: number }[];
    moved: number;
    noise: { weights: number };
  };
}

const full = JSON.parse(readFileSync(goldenPath("full/manifest.json"), "utf8")) as FullManifest;
/** As for adapters: fp32 autograd is up to 4e-6 from float64 (`noise.gradients`). */
const GRADIENT_TOLERANCE = 1e-4;
/** transformers' own fp32 ends within 3e-6 of float64 (`noise.weights`) where weights moved by 5e-3. */
const WEIGHT_TOLERANCE = 2e-5;
/** Softmax does not see the bias of the keys: its gradient is rounding error, of which Adam makes whole steps. */
const isNoise = (key: string): boolean => key.endsWith("key.bias");

async function withTrainable<T>(model: string, body: (encoder: NativeEncoder) => Promise<T>): Promise<T> {
  const encoder = await loadEngine().open({
    weightsPath: goldenPath(`models/${model}/model.safetensors`),
    shape: goldenShape(model),
    pooling: pick(manifest.models, model).pooling,
    device: "cpu",
    threads: 1,
    trainable: true,
  });
  return body(encoder).finally(() => encoder.close());
}

function withoutNoise(tensors: Record<string, Float32Array>): Record<string, Float32Array> {
  return Object.fromEntries(Object.entries(tensors).filter(([key]) => !isNoise(key)));
}

describe("training all parameters", () => {
  for (const [name, golden] of Object.entries(full.models)) {
    it(`has the gradients of transformers: ${name}`, () =>
      withTrainable(name, async (encoder) => {
        const found = await encoder.gradients(casePairs, { seed: 1, step: 0, microBatchTokens: 4096 });
        expect(Math.abs(found.loss - golden.loss)).toBeLessThan(1e-6);
        const expected = readTensors(goldenPath(`full/gradients-${name}.safetensors`)).floats;
        expect(Object.keys(found.gradients).sort()).toEqual(Object.keys(expected).sort());
        expectTensors(
          withoutNoise(found.gradients),
          withoutNoise(expected),
          GRADIENT_TOLERANCE,
          relativeDifference,
        );
        for (const [key, gradient] of Object.entries(found.gradients)) {
          if (isNoise(key)) expect(maxAbs(gradient), key).toBeLessThan(1e-6);
        }
      }));
  }

  it("follows transformers' AdamW, in which biases and LayerNorms do not decay", () =>
    withTrainable("plain", async (encoder) => {
      const { learningRate, weightDecay, maxGradNorm, steps, records } = full.run;
      const batches = manifest.batches.map(([start, end]) => pairBatch(range(start, end)));
      for (let step = 0; step < steps; step++) {
        const { loss, gradNorm } = await encoder.step(batches[step % batches.length] as ExampleBatch, {
          seed: 1,
          step,
          learningRate,
          weightDecay,
          beta1: 0.9,
          beta2: 0.999,
          epsilon: 1e-8,
          maxGradNorm,
          microBatchTokens: 4096,
        });
        const expected = records[step] as { loss: number; gradNorm: number };
        expect(Math.abs(loss - expected.loss), `loss of step ${step}`).toBeLessThan(5e-6);
        expect(Math.abs(gradNorm / expected.gradNorm - 1), `norm of step ${step}`).toBeLessThan(1e-4);
      }
      const expected = readTensors(goldenPath(`full/step-${steps}.safetensors`)).floats;
      const found = await encoder.modelWeights();
      expectTensors(withoutNoise(found), withoutNoise(expected), WEIGHT_TOLERANCE, maxDifference);
    }));

  it("is told apart by the tolerance", () => {
    expect(full.run.noise.weights * 4).toBeLessThan(WEIGHT_TOLERANCE);
    // A decay of 0.1 at a rate of 1e-3 shifts a weight of 1 by 5e-4 in five steps.
    expect(full.run.moved).toBeGreaterThan(WEIGHT_TOLERANCE * 100);
  });
});
