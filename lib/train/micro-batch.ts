import type { NativeEncoder } from "../native/types.js";

const MOST_ACTIVATIONS = 384 * 2 ** 20;
const MOST_TOKENS = 512;
const FEWEST_TOKENS = 256;

/**
 * Tokens of a micro-batch while training: 512, halved until what backward keeps fits 384 MiB. Of 128 to 1,024, that is as
 * fast as the fastest with an encoder of 12 layers by 384; one of 24 layers by 1,024 takes 256 tokens and 0.28 GiB. The shape of the
 * model and its adapter decide alone, so that a run is repeated to the bit elsewhere.
 */
export function trainingMicroBatch(native: NativeEncoder): number {
  let tokens = MOST_TOKENS;
  while (tokens > FEWEST_TOKENS && native.memory(tokens, true).activations > MOST_ACTIVATIONS) tokens /= 2;
  return tokens;
}
