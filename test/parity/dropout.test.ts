import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NativeEncoder } from "../../lib/native/types.js";
import { expectSameTensors, expectTensors, relativeDifference } from "./distance.js";
import {
  adapterPath,
  casePairs,
  goldenPath,
  goldenSpec,
  manifest,
  pairBatch,
  pick,
  textBatch,
  withGolden,
} from "./golden.js";
import { readTensors, writeTensors } from "./safetensors.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "peft-train-dropout-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ALL = { adapter: "qkv", hiddenDropout: 0.1, attentionDropout: 0.1, loraDropout: 0.1 };

function gradients(encoder: NativeEncoder, seed: number, step: number, microBatchTokens = 4096) {
  return encoder.gradients(casePairs, { seed, step, microBatchTokens });
}

describe("dropout masks", () => {
  it("are the same for the same seed and step, bit for bit", () =>
    withGolden("plain", ALL, async (encoder) => {
      const first = await gradients(encoder, 7, 3);
      await gradients(encoder, 8, 4);
      const again = await gradients(encoder, 7, 3);
      expect(again.loss).toBe(first.loss);
      expectSameTensors(again.gradients, first.gradients);
    }));

  for (const place of Object.keys(manifest.dropout)) {
    it(`differ with the seed and with the step: ${place}`, async () => {
      const { rates } = pick(manifest.dropout, place);
      const options = {
        hiddenDropout: rates.hidden,
        attentionDropout: rates.attention,
        loraDropout: rates.lora,
      };
      await withGolden("plain", { adapter: "qkv", ...options }, async (encoder) => {
        const losses = [];
        for (const [seed, step] of [
          [1, 0],
          [1, 1],
          [2, 0],
          [2, 1],
          [1, 2 ** 31 - 1],
          [2 ** 31, 0],
          [2 ** 32 + 1, 0],
        ] as const)
          losses.push((await gradients(encoder, seed, step)).loss);
        expect(new Set(losses).size, losses.join(" ")).toBe(losses.length);
      });
    });
  }

  it("do not depend on how a batch is split, up to the order of sums", () =>
    withGolden("plain", ALL, async (encoder) => {
      const whole = await gradients(encoder, 7, 3, 1_000_000);
      for (const microBatchTokens of [1, 65, 300]) {
        const split = await gradients(encoder, 7, 3, microBatchTokens);
        expect(Math.abs(split.loss - whole.loss)).toBeLessThan(1e-6);
        expectTensors(split.gradients, whole.gradients, 2e-5, relativeDifference);
      }
    }));

  it("do not depend on the number of threads, up to the order of sums", async () => {
    const run = (threads: number) =>
      withGolden("plain", { ...ALL, threads }, (encoder) => gradients(encoder, 7, 3));
    const [one, two] = [await run(1), await run(2)];
    expectTensors(two.gradients, one.gradients, 2e-5, relativeDifference);
  });

  it("differ between two equal texts of a batch, at every place of dropout", async () => {
    const twice = { ...textBatch([2, 2]), labels: Float32Array.of(1), textsPerExample: 2 };
    for (const { rates } of Object.values(manifest.dropout)) {
      const options = {
        hiddenDropout: rates.hidden,
        attentionDropout: rates.attention,
        loraDropout: rates.lora,
      };
      await withGolden("plain", { adapter: "qkv", ...options }, async (encoder) => {
        const { loss } = await encoder.gradients(twice, { seed: 1, step: 0, microBatchTokens: 4096 });
        expect(loss).toBeGreaterThan(1e-6);
      });
    }
  });

  it("are those of step(): its loss and norm are those of gradients() with the same seed and step", () =>
    withGolden("plain", ALL, async (encoder) => {
      const expected = await gradients(encoder, 7, 3);
      const squares = Object.values(expected.gradients).map((g) => g.reduce((sum, x) => sum + x * x, 0));
      const norm = Math.sqrt(squares.reduce((sum, x) => sum + x, 0));
      const adam = {
        learningRate: 1e-3,
        weightDecay: 0,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        maxGradNorm: 0,
      };
      const found = await encoder.step(casePairs, { seed: 7, step: 3, microBatchTokens: 4096, ...adam });
      expect(found.loss).toBe(expected.loss);
      expect(Math.abs(found.gradNorm / norm - 1)).toBeLessThan(1e-5);
    }));
});

/**
 * Along the gradient of one tensor at a time the loss changes fastest, so rounding of the loss (1e-7) matters least:
 * 1e-7 / 0.02 against slopes of 0.05 to 1. Richardson's extrapolation removes the error of order h squared.
 */
const STEP = 0.02;
/** Relative to the norm of the whole gradient. */
const DIFFERENCE_TOLERANCE = 1e-3;

describe("with dropout on, finite differences of the loss", () => {
  const places = { none: { rates: { hidden: 0, attention: 0, lora: 0 } }, ...manifest.dropout };
  for (const [place, { rates }] of Object.entries(places)) {
    it(`equal the gradient of every tensor: ${place}`, async () => {
      const options = {
        hiddenDropout: rates.hidden,
        attentionDropout: rates.attention,
        loraDropout: rates.lora,
      };
      const { floats, shapes } = readTensors(adapterPath("qkv"));
      const spec = goldenSpec("qkv", rates.lora);
      const file = join(folder, "moved.safetensors");
      const batch = pairBatch([0, 1, 3, 4, 5, 8]);
      const key = { seed: 5, step: 2, microBatchTokens: 4096 };
      await withGolden("plain", { adapter: "qkv", ...options }, async (encoder) => {
        const exact = (await encoder.gradients(batch, key)).gradients;
        const norms = Object.entries(exact).map(([name, g]) => [name, Math.hypot(...g)] as const);
        const whole = Math.hypot(...norms.map(([, norm]) => norm));
        const lossAt = async (name: string, norm: number, distance: number) => {
          const moved = pick(floats, name).map((w, i) => w + (distance * (exact[name]?.[i] ?? 0)) / norm);
          writeTensors(file, { ...floats, [name]: moved }, shapes);
          await encoder.loadAdapter(file, spec);
          return (await encoder.gradients(batch, key)).loss;
        };
        for (const [name, norm] of norms) {
          const central = async (h: number) =>
            ((await lossAt(name, norm, h)) - (await lossAt(name, norm, -h))) / (2 * h);
          const slope = (4 * (await central(STEP / 2)) - (await central(STEP))) / 3;
          expect(Math.abs(slope - norm) / whole, `${name}: slope ${slope}, norm ${norm}`).toBeLessThan(
            DIFFERENCE_TOLERANCE,
          );
        }
      });
    });
  }
});

/**
 * Against a thousand draws of transformers and PEFT. The distance of the two mean gradients, squared, over what it is
 * expected to be for equal distributions: near 1 (0.8 to 1.2 for PEFT against itself). Leaving out one of the three
 * hidden dropouts gives 7 to 17, a missing 1 / (1 - p) 29, two thirds of the rate 11.
 */
const MEAN_RATIO_LIMIT = 2;
const DRAWS = 300;

describe("over many steps, dropout", () => {
  for (const [place, golden] of Object.entries(manifest.dropout)) {
    it(`is distributed as in PyTorch: ${place}`, async () => {
      const { rates } = golden;
      const options = {
        hiddenDropout: rates.hidden,
        attentionDropout: rates.attention,
        loraDropout: rates.lora,
      };
      const reference = readTensors(goldenPath(`dropout/${place}.safetensors`)).floats;
      const losses: number[] = [];
      const sums: Record<string, Float64Array> = {};
      await withGolden("plain", { adapter: "qkv", ...options }, async (encoder) => {
        for (let step = 0; step < DRAWS; step++) {
          const draw = await gradients(encoder, 11, step);
          losses.push(draw.loss);
          for (const [key, gradient] of Object.entries(draw.gradients)) {
            sums[key] ??= new Float64Array(gradient.length);
            const sum = sums[key] as Float64Array;
            for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (gradient[i] as number);
          }
        }
      });
      const spread = 1 / DRAWS + 1 / golden.draws;
      const mean = losses.reduce((sum, x) => sum + x, 0) / DRAWS;
      const deviation = Math.sqrt(losses.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (DRAWS - 1));
      expect(Math.abs(mean - golden.lossMean) / (golden.lossDeviation * Math.sqrt(spread))).toBeLessThan(4);
      // The deviation of a deviation over 300 draws is some 5 %.
      expect(Math.abs(deviation / golden.lossDeviation - 1)).toBeLessThan(0.2);
      let distance = 0;
      let expected = 0;
      for (const [key, sum] of Object.entries(sums)) {
        const means = pick(reference, `mean/${key}`);
        for (const [i, variance] of pick(reference, `variance/${key}`).entries()) {
          distance += ((sum[i] as number) / DRAWS - (means[i] as number)) ** 2;
          expected += variance * spread;
        }
      }
      expect(distance / expected).toBeLessThan(MEAN_RATIO_LIMIT);
    });
  }
});
