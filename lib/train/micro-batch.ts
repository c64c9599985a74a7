import type { LossSpec, NativeEncoder } from "../native/types.js";
import { isOverWholeBatch } from "./losses.js";

const MIB = 2 ** 20;

/**
 * Tokens of a micro-batch while training: 512, halved until what backward keeps fits 384 MiB. Of 128 to 1,024, that is as
 * fast as the fastest with an encoder of 12 layers by 384; one of 24 layers by 1,024 takes 256 tokens and 0.28 GiB. The shape of the
 * model and its adapter decide alone, so that a run is repeated to the bit elsewhere.
 *
 * A loss over the whole batch sends whatever does not fit one micro-batch forward twice, which costs 30 % of the speed:
 * there it is as many as fit 1 GiB, at most 8,192, which holds 64 pairs of 60 tokens.
 */
export function trainingMicroBatch(native: NativeEncoder, loss: LossSpec): number {
  return isOverWholeBatch(loss)
    ? largest(native, { tokens: 8192, fewest: 256, most: 1024 * MIB })
    : largest(native, { tokens: 512, fewest: 256, most: 384 * MIB });
}

function largest(
  native: NativeEncoder,
  { tokens, fewest, most }: { tokens: number; fewest: number; most: number },
): number {
  while (tokens > fewest && native.memory(tokens, true).activations > most) tokens /= 2;
  return tokens;
}
