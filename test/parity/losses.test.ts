import { describe, expect, it } from "vitest";
import type { ExampleBatch, LossSpec, NativeEncoder } from "../../lib/native/types.js";
import { expectTensors, relativeDifference } from "./distance.js";
import { range, textBatch, withGolden } from "./golden.js";

// Every loss itself is held against sentence-transformers in test/native/cpp/loss_test.cc. Here: that a loss and all
// of its parameters arrive in the engine, and that micro-batches change nothing.

const TEXTS = 30;
const SCORES = Float32Array.from({ length: TEXTS / 2 }, (_, i) => (i % 4) / 4);
const LABELS = SCORES.map((score) => (score > 0.4 ? 1 : 0));
/** Cosines are off by some 1e-7 between two runs of the encoder; scales multiply that. */
const TOLERANCE = 2e-5;

type Vectors = Float32Array[];

const dot = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);
const distance = (a: Float32Array, b: Float32Array): number =>
  Math.hypot(...a.map((x, i) => x - (b[i] as number)));
const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const at = <T>(list: ArrayLike<T>, i: number): T => list[i] as T;

function cut(vectors: Vectors, width: number): Vectors {
  return vectors.map((vector) => {
    const part = vector.slice(0, width);
    const norm = Math.hypot(...part);
    return part.map((value) => value / norm);
  });
}

const pairs = (vectors: Vectors): [Float32Array, Float32Array][] =>
  range(0, vectors.length / 2).map((i) => [at(vectors, 2 * i), at(vectors, 2 * i + 1)]);

function ranking(vectors: Vectors, each: number, scale: number): number {
  const examples = range(0, vectors.length / each);
  const candidates = range(1, each).flatMap((text) => examples.map((i) => at(vectors, each * i + text)));
  return mean(
    examples.map((i) => {
      const scores = candidates.map((candidate) => scale * dot(at(vectors, each * i), candidate));
      return Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0)) - at(scores, i);
    }),
  );
}

interface Case {
  spec: LossSpec;
  each: number;
  labels: Float32Array;
  loss(vectors: Vectors): number;
}

const TARGETS = Float32Array.from({ length: TEXTS * 32 }, (_, i) => Math.cos(i) / 4);
const NONE = new Float32Array(0);
const CASES: Record<string, Case> = {
  "contrastive, euclidean": {
    spec: { name: "contrastive", distance: "euclidean", margin: 0.7 },
    each: 2,
    labels: LABELS,
    loss: (vectors) =>
      mean(
        pairs(vectors).map(([a, b], i) => {
          const d = distance(a, b);
          return 0.5 * (LABELS[i] === 1 ? d ** 2 : Math.max(0.7 - d, 0) ** 2);
        }),
      ),
  },
  "cosine similarity": {
    spec: { name: "cosine_similarity" },
    each: 2,
    labels: SCORES,
    loss: (vectors) => mean(pairs(vectors).map(([a, b], i) => (dot(a, b) - at(SCORES, i)) ** 2)),
  },
  cosent: {
    spec: { name: "cosent", scale: 3 },
    each: 2,
    labels: SCORES,
    loss: (vectors) => {
      const cosines = pairs(vectors).map(([a, b]) => dot(a, b));
      let sum = 1;
      for (const [i, low] of cosines.entries()) {
        for (const [j, high] of cosines.entries()) {
          if (at(SCORES, i) < at(SCORES, j)) sum += Math.exp(3 * (low - high));
        }
      }
      return Math.log(sum);
    },
  },
  "mse of the first 5 entries and of all": {
    spec: {
      name: "mse",
      matryoshka: [
        { dims: 32, weight: 1 },
        { dims: 5, weight: 0.5 },
      ],
    },
    each: 1,
    labels: TARGETS,
    loss: (vectors) =>
      [
        { dims: 32, weight: 1 },
        { dims: 5, weight: 0.5 },
      ].reduce((sum, { dims, weight }) => {
        const errors = cut(vectors, dims).map((vector, i) =>
          mean([...vector].map((value, j) => (value - at(TARGETS, 32 * i + j)) ** 2)),
        );
        return sum + weight * mean(errors);
      }, 0),
  },
  "triplet, cosine": {
    spec: { name: "triplet", distance: "cosine", margin: 0.3 },
    each: 3,
    labels: NONE,
    loss: (vectors) =>
      mean(
        range(0, TEXTS / 3).map((i) => {
          const [anchor, positive, negative] = [0, 1, 2].map((text) => at(vectors, 3 * i + text));
          const [near, far] = [positive, negative].map((v) => dot(anchor as Float32Array, v as Float32Array));
          return Math.max((far as number) - (near as number) + 0.3, 0);
        }),
      ),
  },
  "multiple negatives ranking": {
    spec: { name: "multiple_negatives_ranking", scale: 7 },
    each: 2,
    labels: NONE,
    loss: (vectors) => ranking(vectors, 2, 7),
  },
  "multiple negatives ranking with negatives, at three widths": {
    spec: {
      name: "multiple_negatives_ranking",
      scale: 20,
      matryoshka: [
        { dims: 5, weight: 0.5 },
        { dims: 32, weight: 1 },
        { dims: 16, weight: 2 },
      ],
    },
    each: 5,
    labels: NONE,
    loss: (vectors) =>
      [
        { dims: 5, weight: 0.5 },
        { dims: 32, weight: 1 },
        { dims: 16, weight: 2 },
      ].reduce((sum, { dims, weight }) => sum + weight * ranking(cut(vectors, dims), 5, 20), 0),
  },
};

async function embed(encoder: NativeEncoder): Promise<Vectors> {
  const options = { adapter: true, normalize: true, microBatchTokens: 4096 };
  const rows = await encoder.encode(textBatch(range(0, TEXTS)), options);
  const width = rows.length / TEXTS;
  return range(0, TEXTS).map((i) => rows.slice(i * width, (i + 1) * width));
}

describe("losses through the encoder", () => {
  for (const [name, { spec, each, labels, loss }] of Object.entries(CASES)) {
    it(name, () =>
      withGolden("plain", { adapter: "qkv" }, async (encoder) => {
        const batch: ExampleBatch = { ...textBatch(range(0, TEXTS)), labels, textsPerExample: each };
        const pass = (microBatchTokens: number) =>
          encoder.gradients(batch, { seed: 1, step: 0, microBatchTokens, loss: spec });
        const whole = await pass(100_000);
        expect(Math.abs(whole.loss - loss(await embed(encoder)))).toBeLessThan(TOLERANCE);
        for (const tokens of [1, 200]) {
          const split = await pass(tokens);
          expect(Math.abs(split.loss - whole.loss)).toBeLessThan(TOLERANCE);
          expectTensors(split.gradients, whole.gradients, 1e-4, relativeDifference);
        }
      }),
    );
  }

  it("are the pair loss unless told", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const batch: ExampleBatch = { ...textBatch(range(0, TEXTS)), labels: LABELS, textsPerExample: 2 };
      const options = { seed: 1, step: 0, microBatchTokens: 100_000 };
      const unless = await encoder.gradients(batch, options);
      expect(await encoder.gradients(batch, { ...options, loss: { name: "pair" } })).toEqual(unless);
    }));

  it("that do not fit the examples are refused", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const batch: ExampleBatch = { ...textBatch(range(0, TEXTS)), labels: NONE, textsPerExample: 3 };
      const pass = (loss: LossSpec) =>
        encoder.gradients(batch, { seed: 1, step: 0, microBatchTokens: 1000, loss });
      await expect(pass({ name: "cosent", scale: 20 })).rejects.toMatchObject({ code: "USAGE" });
      await expect(pass({ name: "triplet", distance: "cosine", margin: 0.1 })).resolves.toBeDefined();
      expect(() => pass({ name: "hinge" as never })).toThrow(expect.objectContaining({ code: "USAGE" }));
    }));
});
