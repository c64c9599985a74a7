import { describe, expect, it } from "vitest";
import type { NativeEncoder, Pooling, TokenBatch } from "../../lib/native/types.js";
import { maxDifference } from "./distance.js";
import {
  caseTexts,
  goldenEmbeddings,
  goldenShape,
  manifest,
  pick,
  range,
  textBatch,
  withGolden,
} from "./golden.js";

/** fp32 embeddings of the reference are 5e-7 from float64 ones (`noise.embeddings`); twenty times that. */
const EMBEDDING_TOLERANCE = 1e-5;
/** Two batchings of the same text differ in the order of sums only: the reference shows 1e-6 itself. */
const BATCHING_TOLERANCE = 2e-6;

function embed(encoder: NativeEncoder, batch: TokenBatch = caseTexts, options = {}): Promise<Float32Array> {
  return encoder.encode(batch, { adapter: true, normalize: true, microBatchTokens: 4096, ...options });
}

describe("embeddings without an adapter", () => {
  for (const model of Object.keys(manifest.models)) {
    for (const pooling of ["mean", "cls"] satisfies Pooling[]) {
      it(`equal transformers: ${model}, ${pooling}`, () =>
        withGolden(model, { pooling }, async (encoder) => {
          const unit = await embed(encoder);
          expect(maxDifference(unit, pick(goldenEmbeddings, `${model}.${pooling}`))).toBeLessThan(
            EMBEDDING_TOLERANCE,
          );
          const raw = await embed(encoder, caseTexts, { normalize: false });
          // Unnormalised rows are longer than 1, and so are their errors.
          expect(maxDifference(raw, pick(goldenEmbeddings, `${model}.${pooling}.raw`))).toBeLessThan(
            EMBEDDING_TOLERANCE * 4,
          );
        }));
    }
  }

  it("never drop, whatever the config says", () =>
    withGolden(
      "plain",
      { hiddenDropout: 0.5, attentionDropout: 0.5, adapter: "qkv", loraDropout: 0.5 },
      async (encoder) => {
        const rows = await embed(encoder);
        expect(maxDifference(rows, pick(goldenEmbeddings, "adapter.qkv"))).toBeLessThan(EMBEDDING_TOLERANCE);
      },
    ));
});

describe("embeddings with an adapter", () => {
  for (const [name, { model }] of Object.entries(manifest.adapters)) {
    it(`equal PEFT: ${name}`, () =>
      withGolden(model, { adapter: name }, async (encoder) => {
        const rows = await embed(encoder);
        expect(maxDifference(rows, pick(goldenEmbeddings, `adapter.${name}`))).toBeLessThan(
          EMBEDDING_TOLERANCE,
        );
        const base = pick(goldenEmbeddings, `${model}.${pick(manifest.models, model).pooling}`);
        const without = await embed(encoder, caseTexts, { adapter: false });
        expect(maxDifference(without, base)).toBeLessThan(EMBEDDING_TOLERANCE);
      }));
  }

  it("are the base model's again once it is removed", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      await encoder.removeAdapter();
      expect(maxDifference(await embed(encoder), pick(goldenEmbeddings, "plain.mean"))).toBeLessThan(
        EMBEDDING_TOLERANCE,
      );
    }));
});

describe("batching", () => {
  const { hiddenSize } = goldenShape("plain");
  const row = (rows: Float32Array, i: number) => rows.subarray(i * hiddenSize, (i + 1) * hiddenSize);

  for (const microBatchTokens of [1, 65, 300, 1_000_000]) {
    it(`gives the same rows in groups of ${microBatchTokens} tokens`, () =>
      withGolden("plain", { adapter: "qkv" }, async (encoder) => {
        const rows = await embed(encoder, caseTexts, { microBatchTokens });
        expect(maxDifference(rows, await embed(encoder))).toBeLessThan(BATCHING_TOLERANCE);
      }));
  }

  it("gives every text the row it has alone", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const together = await embed(encoder);
      for (const i of range(0, 2 * manifest.casePairs)) {
        const alone = await embed(encoder, textBatch([i]));
        expect(maxDifference(alone, row(together, i)), `text ${i}`).toBeLessThan(BATCHING_TOLERANCE);
      }
    }));

  it("keeps input order", () =>
    withGolden("plain", {}, async (encoder) => {
      const order = range(0, 2 * manifest.casePairs).sort((a, b) => ((a * 7) % 32) - ((b * 7) % 32));
      const rows = await embed(encoder, textBatch(order));
      const straight = await embed(encoder);
      for (const [position, text] of order.entries()) {
        expect(maxDifference(row(rows, position), row(straight, text)), `text ${text}`).toBeLessThan(
          BATCHING_TOLERANCE,
        );
      }
    }));
});
