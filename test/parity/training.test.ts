import { describe, expect, it } from "vitest";
import type { ExampleBatch, NativeEncoder, StepOptions, StepResult } from "../../lib/native/types.js";
import { expectSameTensors, expectTensors, maxDifference } from "./distance.js";
import { goldenPath, manifest, pairBatch, pick, range, trainedPart, withGolden } from "./golden.js";
import { readTensors } from "./safetensors.js";

/**
 * Largest |difference| of an adapter weight. The requirement is 1e-4; fp32 PEFT itself ends within 5e-6 of float64
 * (`noise.weights`) over runs that move weights by 0.02 to 0.05, so 2.5e-5 leaves room for another order of sums and
 * still sees a decay of 0.01 being left out, which shifts weights by 1.9e-4. What keeps the noise so low: Adam divides
 * by the root of the second moment, so an entry whose gradient is all rounding error would step by the full learning
 * rate in a random direction. Gradients here are 1e-3 to 1, far above both rounding and Adam's epsilon of 1e-8, and
 * exact zeros (A while B is 0) are zeros on both sides.
 */
const WEIGHT_TOLERANCE = 2.5e-5;
/** As for one gradient (1e-6) for the first steps; over a run the weights' own distance shows in the loss. */
const LOSS_TOLERANCE = 5e-6;
/** Of the norm before clipping, relative. */
const NORM_TOLERANCE = 1e-4;

const batches = manifest.batches.map(([start, end]) => pairBatch(range(start, end)));

function stepOptions(run: string, step: number): StepOptions {
  const { records, weightDecay, maxGradNorm } = pick(manifest.runs, run);
  return {
    seed: 1,
    step,
    learningRate: records[step]?.learningRate ?? Number.NaN,
    weightDecay,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    maxGradNorm,
    microBatchTokens: 4096,
  };
}

async function runSteps(
  encoder: NativeEncoder,
  run: string,
  overrides: Partial<StepOptions> = {},
  after?: (step: number, result: StepResult) => Promise<void>,
): Promise<void> {
  for (let step = 0; step < pick(manifest.runs, run).steps; step++) {
    const batch = batches[step % batches.length] as ExampleBatch;
    const result = await encoder.step(batch, { ...stepOptions(run, step), ...overrides });
    await after?.(step, result);
  }
}

describe("optimiser steps", () => {
  for (const [name, golden] of Object.entries(manifest.runs)) {
    it(`follow PyTorch: ${name}, ${golden.steps} steps`, () =>
      withGolden(
        pick(manifest.adapters, golden.adapter).model,
        { adapter: golden.adapter },
        async (encoder) => {
          await runSteps(encoder, name, {}, async (step, { loss, gradNorm }) => {
            const expected = golden.records[step];
            expect(Math.abs(loss - (expected?.loss ?? Number.NaN)), `loss of step ${step}`).toBeLessThan(
              LOSS_TOLERANCE,
            );
            const norm = expected?.gradNorm ?? Number.NaN;
            expect(Math.abs(gradNorm - norm) / norm, `norm of step ${step}`).toBeLessThan(NORM_TOLERANCE);
            if (!golden.keep.includes(step + 1)) return;
            const weights = readTensors(goldenPath(`runs/${name}/step-${step + 1}.safetensors`)).floats;
            const found = trainedPart(golden.adapter, await encoder.adapterWeights());
            expectTensors(found, weights, WEIGHT_TOLERANCE, maxDifference);
          });
        },
      ));

    it(`are told apart by the tolerance: ${name}`, () => {
      expect(golden.noise.weights * 4).toBeLessThan(WEIGHT_TOLERANCE);
      expect(golden.moved).toBeGreaterThan(WEIGHT_TOLERANCE * 100);
      for (const shift of [golden.shiftByDecay, golden.shiftByClipping])
        if (shift !== undefined) expect(shift).toBeGreaterThan(WEIGHT_TOLERANCE * 4);
    });
  }

  it("leave weights that the loss does not reach alone, decay included", () =>
    withGolden("plain", { adapter: "all-linear" }, async (encoder) => {
      const before = await encoder.adapterWeights();
      await runSteps(encoder, "adamw-all-linear");
      const after = await encoder.adapterWeights();
      const keys = pick(manifest.adapters, "all-linear").unreached;
      expect(keys).toHaveLength(2);
      for (const key of keys) expect(maxDifference(pick(after, key), pick(before, key)), key).toBe(0);
    }));

  it("end on the same weights in small groups of tokens", () =>
    withGolden("plain", { adapter: "fresh" }, async (encoder) => {
      await runSteps(encoder, "adam", { microBatchTokens: 90 });
      const weights = readTensors(goldenPath("runs/adam/step-20.safetensors")).floats;
      expectTensors(await encoder.adapterWeights(), weights, WEIGHT_TOLERANCE, maxDifference);
    }));

  it("start afresh after loadAdapter: no moments are left over", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      await runSteps(encoder, "adamw-clip");
      const { modules } = pick(manifest.adapters, "qkv");
      await encoder.loadAdapter(goldenPath("adapters/qkv/adapter_model.safetensors"), {
        modules,
        dropout: 0,
      });
      await runSteps(encoder, "adamw-clip");
      const weights = readTensors(goldenPath("runs/adamw-clip/step-20.safetensors")).floats;
      expectTensors(await encoder.adapterWeights(), weights, WEIGHT_TOLERANCE, maxDifference);
    }));

  for (const threads of [1, 2]) {
    it(`repeat bit for bit on ${threads} threads, dropout on`, async () => {
      const dropout = { hiddenDropout: 0.1, attentionDropout: 0.1, loraDropout: 0.1 };
      const run = () =>
        withGolden("plain", { adapter: "qkv", threads, ...dropout }, async (encoder) => {
          for (const step of range(0, 4))
            await encoder.step(batches[step] as ExampleBatch, stepOptions("adamw-clip", step));
          return encoder.adapterWeights();
        });
      expectSameTensors(await run(), await run());
    });
  }
});
