import type { NativeEncoder } from "../native/types.js";

const MIB = 2 ** 20;
const CPU = { most: 512, fewest: 256, activations: 384 * MIB };
/** A batch of the article is one micro-batch: a GPU idles between small ones. Chosen without a measurement. */
const GPU = { most: 16_384, fewest: 256, activations: 2048 * MIB };

/**
 * Tokens of a micro-batch while training. On the CPU 512, halved until what backward keeps fits 384 MiB: of 128 to 1,024, that is as
 * fast as the fastest with an encoder of 12 layers by 384; one of 24 layers by 1,024 takes 256 tokens and 0.28 GiB. The device and the
 * shape of the model and its adapter decide alone, so that a run is repeated to the bit elsewhere.
 */
export function trainingMicroBatch(native: NativeEncoder): number {
  const { most, fewest, activations } = native.info().device === "cpu" ? CPU : GPU;
  let tokens = most;
  while (tokens > fewest && native.memory(tokens, true).activations > activations) tokens /= 2;
  return tokens;
}
