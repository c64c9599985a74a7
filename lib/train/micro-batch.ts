import { MICRO_BATCH_TOKENS } from "../embed.js";
import type { NativeEncoder } from "../native/types.js";

const MOST_ACTIVATIONS = 384 * 2 ** 20;
const FEWEST_TOKENS = 256;

/**
 * Tokens of a micro-batch while training: as many as for encoding, halved until what backward keeps fits 384 MiB. Small
 * encoders are not touched; one of 24 layers by 1,024 takes 256 tokens and 0.28 GiB instead of 1.1. The shape of the
 * model and its adapter decide alone, so that a run is repeated to the bit elsewhere.
 */
export function trainingMicroBatch(native: NativeEncoder): number {
  let tokens = MICRO_BATCH_TOKENS;
  while (tokens > FEWEST_TOKENS && native.memory(tokens, true).activations > MOST_ACTIVATIONS) tokens /= 2;
  return tokens;
}
