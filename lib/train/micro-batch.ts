import type { LossSpec, NativeEncoder } from "../native/types.js";
import { isOverWholeBatch } from "./losses.js";

const MIB = 2 ** 20;
const MOST_ACTIVATIONS = 384 * MIB;
const MOST_OF_WHOLE_BATCH = 1024 * MIB;
const MOST_TOKENS = 512;
const FEWEST_TOKENS = 256;

/**
 * Tokens of a micro-batch while training: 512, halved until what backward keeps fits 384 MiB. Of 128 to 1,024, that is as
 * fast as the fastest with an encoder of 12 layers by 384; one of 24 layers by 1,024 takes 256 tokens and 0.28 GiB. The shape of the
 * model and its adapter decide, so that a run is repeated to the bit elsewhere.
 *
 * A loss over a whole batch sends every micro-batch but one forward twice, which costs 30 % of the speed: there it is the
 * whole step where that fits 1 GiB, with a quarter to spare for steps of long texts.
 * @param stepTokens Tokens of an optimiser step, in the mean.
 */
export function trainingMicroBatch(native: NativeEncoder, loss: LossSpec, stepTokens: number): number {
  const fits = (tokens: number, most: number): boolean => native.memory(tokens, true).activations <= most;
  const whole = Math.ceil((1.25 * stepTokens) / MOST_TOKENS) * MOST_TOKENS;
  if (isOverWholeBatch(loss) && fits(whole, MOST_OF_WHOLE_BATCH)) return whole;
  let tokens = MOST_TOKENS;
  while (tokens > FEWEST_TOKENS && !fits(tokens, MOST_ACTIVATIONS)) tokens /= 2;
  return tokens;
}
