import { PeftTrainError } from "../errors.js";
import { MOST_STEPS } from "./options/option-table.js";
import type { ResolvedTrainOptions } from "./options/options.js";

export interface RunLength {
  /** Pairs in an optimiser step. Its gradient is the mean over all of them, however many batches they make. */
  pairsPerStep: number;
  stepsPerEpoch: number;
  totalSteps: number;
  epochs: number;
}

/** How long a run over so many pairs is. @throws USAGE where its steps cannot be numbered. */
export function runLength(options: ResolvedTrainOptions, pairs: number): RunLength {
  const pairsPerStep = options.perDeviceTrainBatchSize * options.gradientAccumulationSteps;
  const stepsPerEpoch = Math.ceil(pairs / pairsPerStep);
  const totalSteps = options.maxTrainSteps ?? options.numTrainEpochs * stepsPerEpoch;
  if (totalSteps > MOST_STEPS) {
    throw new PeftTrainError(
      "USAGE",
      `--num_train_epochs=${options.numTrainEpochs} of ${stepsPerEpoch} steps are ${totalSteps} steps; ` +
        `a run has at most ${MOST_STEPS}`,
      { hint: "Lower --num_train_epochs, or raise --per_device_train_batch_size." },
    );
  }
  return { pairsPerStep, stepsPerEpoch, totalSteps, epochs: Math.ceil(totalSteps / stepsPerEpoch) };
}
