import { PeftTrainError } from "../errors.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";

/** How `encode` calls that overlap share the encoder. */
export interface BatchingOptions {
  /** False never puts texts of different calls into one batch; calls still take turns. Default: true. */
  together?: boolean | undefined;
  /**
   * Tokens of a batch, which is one pass through the encoder: between two of them the queue looks again at who waits and who has
   * left. A longer text is a batch of its own. Default: 2,048 on the CPU, 16,384 on a GPU.
   */
  maxBatchTokens?: number | undefined;
  /** Milliseconds that a call waits for others while the encoder is idle and the batch not full. Default: 0, no longer than a turn of the event loop. */
  maxWaitMs?: number | undefined;
  /** `encode` calls that wait or run; one more is refused with `BUSY`. Default: 4,096. */
  maxQueue?: number | undefined;
}

const BATCHING_OPTIONS: OptionNames<BatchingOptions> = {
  together: true,
  maxBatchTokens: true,
  maxWaitMs: true,
  maxQueue: true,
};

export type BatchingSettings = { [K in keyof BatchingOptions]-?: NonNullable<BatchingOptions[K]> };

/** @throws USAGE for a number out of range. */
export function batchingSettings(options: BatchingOptions = {}, device: string): BatchingSettings {
  requireKnownOptions(options, BATCHING_OPTIONS, "batching");
  const maxBatchTokens = options.maxBatchTokens ?? (device.startsWith("cuda") ? 16_384 : 2048);
  const { together = true, maxWaitMs = 0, maxQueue = 4096 } = options;
  requireBetween("maxBatchTokens", maxBatchTokens, 1, 1 << 20);
  requireBetween("maxQueue", maxQueue, 1, 1 << 30);
  requireBetween("maxWaitMs", maxWaitMs, 0, 60_000, "number");
  if (typeof together !== "boolean") {
    throw new PeftTrainError("USAGE", `batching.together=${together}: expected true or false`);
  }
  return { together, maxBatchTokens, maxWaitMs, maxQueue };
}

function requireBetween(
  name: keyof BatchingOptions,
  value: number,
  least: number,
  most: number,
  kind = "whole number",
): void {
  const fits = Number.isFinite(value) && value >= least && value <= most;
  if (fits && (kind === "number" || Number.isInteger(value))) return;
  throw new PeftTrainError(
    "USAGE",
    `batching.${name}=${value}: expected a ${kind} of at least ${least} and at most ${most}`,
  );
}
