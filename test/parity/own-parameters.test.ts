import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { ExampleBatch } from "../../lib/native/types.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { expectSameTensors, expectTensors, maxDifference, relativeDifference } from "./distance.js";
import {
  casePairs,
  caseTexts,
  goldenPath,
  manifest,
  pairBatch,
  range,
  specOfFolder,
  withGolden,
} from "./golden.js";
import { readTensors } from "./safetensors.js";

interface OwnManifest {
  steps: number;
  cases: Record<string, { loss: number; trainableParameters: number; noise: number }>;
}

const own = JSON.parse(readFileSync(goldenPath("own/manifest.json"), "utf8")) as OwnManifest;
const embeddings = readTensors(goldenPath("own/embeddings.safetensors")).floats;
const temporary = temporaryFolder();
/** Sums in another order; PEFT's own fp32 ends within 6e-7 of float64 (`noise`) where weights moved by 3e-3. */
const WEIGHT_TOLERANCE = 1e-5;
/** Softmax does not see the bias of the keys: its gradient is rounding error, of which Adam makes whole steps. */
const isNoise = (key: string): boolean => key.endsWith("key.bias");

function withoutNoise(tensors: Record<string, Float32Array>): Record<string, Float32Array> {
  return Object.fromEntries(Object.entries(tensors).filter(([key]) => !isNoise(key)));
}

describe("adapters with parameters of their own", () => {
  for (const [name, golden] of Object.entries(own.cases)) {
    it(`are PEFT's: ${name}`, () =>
      withGolden("plain", {}, async (encoder) => {
        const base = await encoder.encode(caseTexts, {
          adapter: false,
          normalize: true,
          microBatchTokens: 300,
        });
        const weights = goldenPath(`own/${name}/adapter_model.safetensors`);
        await encoder.loadAdapter(weights, specOfFolder(`own/${name}`));
        expect(encoder.info().trainableParameters).toBe(golden.trainableParameters);
        const encode = (adapter: boolean) =>
          encoder.encode(caseTexts, { adapter, normalize: true, microBatchTokens: 300 });
        expect(maxDifference(await encode(true), embeddings[name] as Float32Array)).toBeLessThan(2e-6);

        const found = await encoder.gradients(casePairs, { seed: 1, step: 0, microBatchTokens: 300 });
        expect(Math.abs(found.loss - golden.loss)).toBeLessThan(1e-6);
        const expected = readTensors(goldenPath(`own/${name}/gradients.safetensors`)).floats;
        expect(Object.keys(found.gradients).sort()).toEqual(Object.keys(expected).sort());
        expectTensors(withoutNoise(found.gradients), withoutNoise(expected), 1e-4, relativeDifference);

        const saved = temporary.path(`${name}.safetensors`);
        await encoder.saveAdapter(saved);
        const [ours, theirs] = [saved, weights].map((file) => readTensors(file).floats) as [
          Record<string, Float32Array>,
          Record<string, Float32Array>,
        ];
        // With bias "all" PEFT writes what its wrappers hold of a LayerNorm twice more.
        const plain = Object.entries(theirs).filter(
          ([key]) => !/\.(original_module|modules_to_save)\.bias$/.test(key),
        );
        expectSameTensors(ours, Object.fromEntries(plain));

        const batches = manifest.batches.map(([start, end]) => pairBatch(range(start, end)));
        for (let step = 0; step < own.steps; step++) {
          await encoder.step(batches[step] as ExampleBatch, {
            seed: 1,
            step,
            learningRate: 1e-3,
            weightDecay: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            maxGradNorm: 0,
            microBatchTokens: 300,
          });
        }
        const last = readTensors(goldenPath(`own/${name}/step-${own.steps}.safetensors`)).floats;
        const trained = Object.entries(await encoder.adapterWeights()).filter(([key]) => key in last);
        expectTensors(
          withoutNoise(Object.fromEntries(trained)),
          withoutNoise(last),
          WEIGHT_TOLERANCE,
          maxDifference,
        );
        expect(maxDifference(await encode(false), base)).toBe(0);
      }));
  }
});
