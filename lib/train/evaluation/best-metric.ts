import type { ExampleKind } from "../../data/example-layout.js";
import { PeftTrainError } from "../../errors.js";
import { snakeCaseKeys } from "../json-line.js";
import type { Label } from "../options/option-value.js";
import type { ResolvedTrainOptions } from "../options/options.js";
import type { EvalMetrics } from "./evaluate.js";

/** What examples of a kind are measured by, as evaluations are logged; the first is what decides unless told. */
const METRICS: Record<ExampleKind, readonly string[]> = {
  labels: ["roc_auc", "average_precision", "accuracy", "f1", "precision", "recall", "loss"],
  scores: ["spearman", "pearson"],
  negatives: ["triplet_accuracy"],
  positives: [],
  texts: ["teacher_cosine"],
};

export const METRIC_NAMES: readonly string[] = Object.values(METRICS).flat();

/** The metric that tells the best evaluation of a run, and which way. */
export interface BestMetric {
  name: string;
  greaterIsBetter: boolean;
}

type BestMetricOptions = Pick<ResolvedTrainOptions, "metricForBestModel" | "greaterIsBetter">;

/** @throws USAGE for a metric that such examples are not measured by. */
export function bestMetric(options: BestMetricOptions, kind: ExampleKind): BestMetric {
  const asked = options.metricForBestModel?.replace(/^eval_/, "");
  const names = METRICS[kind];
  if (asked !== undefined && !names.includes(asked)) {
    throw new PeftTrainError(
      "USAGE",
      `--metric_for_best_model=${options.metricForBestModel}: these examples are measured by ${names.join(", ")}`,
    );
  }
  const name = asked ?? (names[0] as string);
  return { name, greaterIsBetter: options.greaterIsBetter ?? name !== "loss" };
}

/** Null where the metric is undefined for this evaluation. */
export function metricValue(metrics: EvalMetrics, { name }: BestMetric): number | null {
  return (snakeCaseKeys(metrics) as Record<string, number | null>)[name] ?? null;
}

const NEED_EVALUATION = {
  eval_steps: "evalSteps",
  metric_for_best_model: "metricForBestModel",
  greater_is_better: "greaterIsBetter",
  load_best_model_at_end: "loadBestModelAtEnd",
  early_stopping_patience: "earlyStoppingPatience",
  early_stopping_threshold: "earlyStoppingThreshold",
} as const;

/** @throws USAGE for what would be ignored: options of evaluations without an evaluation set, a threshold without patience. */
export function checkEvaluationOptions(options: ResolvedTrainOptions, label: Label): void {
  const names = Object.keys(NEED_EVALUATION) as (keyof typeof NEED_EVALUATION)[];
  const asked = names.find((name) => {
    const unasked = name === "load_best_model_at_end" ? false : null;
    return options[NEED_EVALUATION[name]] !== unasked;
  });
  if (asked !== undefined && options.evalDatasetName === null && options.evalFraction === null) {
    throw new PeftTrainError("USAGE", `${label(asked)}: there is no evaluation set`, {
      hint: `Give ${label("eval_dataset_name")}, or ${label("eval_fraction")} to set a part of the training examples aside.`,
    });
  }
  if (options.earlyStoppingThreshold !== null && options.earlyStoppingPatience === null) {
    throw new PeftTrainError(
      "USAGE",
      `${label("early_stopping_threshold")}=${options.earlyStoppingThreshold} needs ${label("early_stopping_patience")}`,
    );
  }
}
