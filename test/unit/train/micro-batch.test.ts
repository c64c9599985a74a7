import { describe, expect, it } from "vitest";
import type { NativeEncoder } from "../../../lib/native/types.js";
import { trainingMicroBatch } from "../../../lib/train/step/micro-batch.js";

/** An encoder whose activations take this many bytes a token. */
function encoder(bytesPerToken: number, device = "cpu"): NativeEncoder {
  const memory = (tokens: number) => ({ activations: tokens * bytesPerToken });
  return { memory, info: () => ({ device }) } as unknown as NativeEncoder;
}

describe("trainingMicroBatch", () => {
  it("leaves small encoders alone and halves for large ones, down to 256", () => {
    const loss = { name: "pair" } as const;
    expect(trainingMicroBatch(encoder(6 * 11 * 384 * 4), loss, 3000)).toBe(512); // all-MiniLM-L6-v2
    expect(trainingMicroBatch(encoder(12 * 11 * 384 * 4), loss, 3000)).toBe(512); // e5-small
    expect(trainingMicroBatch(encoder(12 * 11 * 768 * 4), loss, 3000)).toBe(512); // e5-base
    expect(trainingMicroBatch(encoder(24 * 11 * 1024 * 4), loss, 3000)).toBe(256); // e5-large
    expect(trainingMicroBatch(encoder(1e9), loss, 3000)).toBe(256);
  });

  it("is the whole step where 1 GiB allows, if the loss needs all vectors of it", () => {
    const small = encoder(6 * 11 * 384 * 4);
    for (const name of ["online_contrastive", "cosent", "angle", "multiple_negatives_ranking"] as const) {
      expect(trainingMicroBatch(small, { name }, 3000)).toBe(4096);
      expect(trainingMicroBatch(small, { name }, 100)).toBe(512);
      expect(trainingMicroBatch(small, { name }, 400_000)).toBe(512);
      expect(trainingMicroBatch(encoder(24 * 11 * 1024 * 4), { name }, 3000)).toBe(256);
    }
    expect(trainingMicroBatch(small, { name: "triplet" }, 3000)).toBe(512);
  });

  it("takes what a GPU needs to be busy, within 2 GiB", () => {
    const loss = { name: "pair" } as const;
    expect(trainingMicroBatch(encoder(6 * 11 * 384 * 4, "cuda:0"), loss, 3000)).toBe(16_384);
    expect(trainingMicroBatch(encoder(12 * 11 * 1024 * 4, "cuda:0"), loss, 3000)).toBe(2048);
    expect(trainingMicroBatch(encoder(1e9, "cuda:0"), loss, 3000)).toBe(256);
  });
});
