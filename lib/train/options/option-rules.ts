import { PeftTrainError } from "../../errors.js";
import { checkEvaluationOptions } from "../evaluation/best-metric.js";
import { anchoredSide } from "../step/anchor.js";
import { checkLoraOptions } from "./lora-options.js";
import { lossRequest } from "./losses.js";
import type { Label } from "./option-value.js";
import { type ResolvedTrainOptions, weightOptions } from "./options.js";
import { checkScheduleSettings } from "./schedule-settings.js";
import { storageRequest } from "./weight-options.js";

/** Holds options against each other. @throws USAGE, NOT_YET_AVAILABLE */
export function checkTogether(options: ResolvedTrainOptions, label: Label): void {
  if (options.mixedPrecision === "fp8") {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${label("mixed_precision")}=fp8 is not available in this version`,
      { hint: `Give bf16 or fp16, or ${label("compute")}=int8.` },
    );
  }
  checkLoraOptions(options, label);
  checkScheduleSettings(options, label);
  storageRequest(weightOptions(options), label);
  lossRequest(options, label);
  anchoredSide(options, label);
  if (options.keepDataset !== null && options.keepWeight === null && !isEvaluated(options)) {
    throw new PeftTrainError(
      "USAGE",
      `${label("keep_dataset")} needs ${label("keep_weight")}, or ${label("eval_dataset_name")} or ${label("eval_fraction")} to measure drift beside`,
    );
  }
  checkEvaluationOptions(options, label);
  if (options.evalDatasetName !== null && options.evalFraction !== null) {
    throw new PeftTrainError(
      "USAGE",
      `${label("eval_dataset_name")} and ${label("eval_fraction")} are two ways to say the same; give one of them`,
    );
  }
}

function isEvaluated({ evalDatasetName, evalFraction }: ResolvedTrainOptions): boolean {
  return evalDatasetName !== null || evalFraction !== null;
}
