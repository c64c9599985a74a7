import type { LossSpec, NativeEncoder } from "../../native/types.js";
import { isOverWholeBatch } from "../options/losses.js";

const MIB = 2 ** 20;
const CPU = { most: 512, fewest: 256, activations: 384 * MIB, ofWholeBatch: 1024 * MIB };
/** A batch of the article is one micro-batch: a GPU idles between small ones. Chosen without a measurement. */
const GPU = { most: 16_384, fewest: 256, activations: 2048 * MIB, ofWholeBatch: 4096 * MIB };

/**
 * Tokens of a micro-batch while training. On the CPU 512, halved until what backward keeps fits 384 MiB: of 128 to 1,024, that is as
 * fast as the fastest with an encoder of 12 layers by 384; one of 24 layers by 1,024 takes 256 tokens and 0.28 GiB. The device and the
 * shape of the model and its adapter decide, so that a run is repeated to the bit elsewhere.
 *
 * A loss over a whole batch sends every micro-batch but one forward twice, which costs 30 % of the speed: there it is the
 * whole step where that fits 1 GiB, with a quarter to spare for steps of long texts.
 * @param stepTokens Tokens of an optimiser step, in the mean.
 */
export function trainingMicroBatch(native: NativeEncoder, loss: LossSpec, stepTokens: number): number {
  const { most, fewest, activations, ofWholeBatch } = native.info().device === "cpu" ? CPU : GPU;
  const fits = (tokens: number, bytes: number): boolean => native.memory(tokens, true).activations <= bytes;
  const whole = Math.ceil((1.25 * stepTokens) / CPU.most) * CPU.most;
  if (isOverWholeBatch(loss) && fits(whole, ofWholeBatch)) return whole;
  let tokens = most;
  while (tokens > fewest && !fits(tokens, activations)) tokens /= 2;
  return tokens;
}
