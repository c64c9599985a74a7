import { MAP_DEPTH, RETRIEVAL_METRICS } from "../../metrics/retrieval.js";
import type { EvalMetrics } from "../../train/evaluation/evaluate.js";
import type { RetrievalMetrics } from "../../train/evaluation/evaluate-retrieval.js";
import { headline } from "../../train/evaluation/headline.js";
import type { Evaluation } from "../../train/events.js";
import { count, metric, table } from "./terminal.js";

export { headline } from "../../train/evaluation/headline.js";

/** How much was measured: 1,200 pairs. */
export function measured(metrics: EvalMetrics | RetrievalMetrics): { items: number; noun: string } {
  if ("documents" in metrics) {
    return { items: metrics.queries, noun: `queries over ${count(metrics.documents)} documents` };
  }
  if ("triplets" in metrics) return { items: metrics.triplets, noun: "triplets" };
  if ("texts" in metrics) return { items: metrics.texts, noun: "texts" };
  return { items: metrics.pairs, noun: "pairs" };
}

/** The metrics of every evaluation of a run, a row each; `best` is the step of the one to mark. */
export function evaluationTable(evaluations: readonly Evaluation[], best: number | undefined): string {
  const columns = evaluations.map(({ metrics }) => summary(metrics));
  const byEpoch = new Set(evaluations.map(({ epoch }) => epoch)).size === evaluations.length;
  const head = [byEpoch ? "After epoch" : "After step", ...(columns[0] ?? []).map(([name]) => name)];
  const rows = evaluations.map(({ epoch, step }, i) => [
    (step === 0 ? "none" : count(byEpoch ? epoch : step)) + (step === best ? " (best)" : ""),
    ...(columns[i] ?? []).map(([, value]) => metric(value)),
  ]);
  return table(head, rows, { right: head.map((_, i) => i).slice(1) });
}

function summary(metrics: EvalMetrics): [name: string, value: number | null][] {
  const { baseCosine } = metrics;
  return baseCosine === undefined ? ofKind(metrics) : [...ofKind(metrics), ["Cosine to base", baseCosine]];
}

function ofKind(metrics: EvalMetrics): [name: string, value: number | null][] {
  const { name, value } = headline(metrics);
  if ("rocAuc" in metrics) {
    return [
      [name, value],
      ["Average precision", metrics.averagePrecision],
      ["Accuracy", metrics.accuracy],
      ["F1", metrics.f1],
      ["Loss", metrics.loss],
    ];
  }
  return "pearson" in metrics
    ? [
        [name, value],
        ["Pearson", metrics.pearson],
      ]
    : [[name, value]];
}

/** All metrics of one evaluation. */
export function metricsTable(metrics: EvalMetrics | RetrievalMetrics): string {
  if ("documents" in metrics) return retrievalTable(metrics);
  const at = (threshold: number): string => `at cosine ${threshold.toFixed(4)} and above`;
  const rows =
    "rocAuc" in metrics
      ? [
          ["ROC AUC", metric(metrics.rocAuc), ""],
          ["Average precision", metric(metrics.averagePrecision), ""],
          ["Accuracy", metric(metrics.accuracy), at(metrics.accuracyThreshold)],
          ["F1", metric(metrics.f1), at(metrics.f1Threshold)],
          ["Precision", metric(metrics.precision), "there"],
          ["Recall", metric(metrics.recall), "there"],
          ["Loss", metric(metrics.loss), ""],
        ]
      : summary(metrics).map(([name, value]) => [name, metric(value), ""]);
  return table(["Metric", "Value", ""], rows, { right: [1] });
}

const RETRIEVAL_NAMES = {
  accuracy: "Accuracy",
  precision: "Precision",
  recall: "Recall",
  mrr: "MRR",
  ndcg: "nDCG",
};

/** A row a metric, a column a k; MAP has a k of its own. */
function retrievalTable(metrics: RetrievalMetrics): string {
  const ks = Object.keys(metrics)
    .filter((name) => name.startsWith("ndcg@"))
    .map((name) => Number(name.slice("ndcg@".length)));
  const rows = RETRIEVAL_METRICS.map((name) => [
    RETRIEVAL_NAMES[name],
    ...ks.map((k) => metric(metrics[`${name}@${k}`] ?? null)),
  ]);
  const head = ["Metric", ...ks.map((k) => `at ${count(k)}`)];
  const map = `MAP at ${MAP_DEPTH}: ${metric(metrics[`map@${MAP_DEPTH}`] ?? null)}`;
  return `${table(head, rows, { right: head.map((_, i) => i).slice(1) })}\n${map}`;
}
