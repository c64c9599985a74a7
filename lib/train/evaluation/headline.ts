import type { EvalMetrics } from "./evaluate.js";

/** The number that a kind of data is judged by, and its name. */
export function headline(metrics: EvalMetrics): { name: string; value: number | null } {
  if ("rocAuc" in metrics) return { name: "ROC AUC", value: metrics.rocAuc };
  if ("spearman" in metrics) return { name: "Spearman", value: metrics.spearman };
  if ("triplets" in metrics) return { name: "Triplet accuracy", value: metrics.tripletAccuracy };
  return { name: "Cosine to the teacher", value: metrics.teacherCosine };
}
