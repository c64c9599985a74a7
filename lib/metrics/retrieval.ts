import { PeftTrainError } from "../errors.js";

/**
 * Grades of the documents that are relevant to one query, by the number of the document, all above 0. Documents that
 * are not in the corpus have negative numbers: they count as never found.
 */
export type Relevance = ReadonlyMap<number, number>;

/** What `retrievalMetrics` gives at every k. */
export const RETRIEVAL_METRICS = ["accuracy", "precision", "recall", "mrr", "ndcg"] as const;
/** Documents that mean average precision looks at, as in sentence-transformers. */
export const MAP_DEPTH = 100;

/** Means over all queries, each from 0 to 1, under names such as `ndcg@10`. */
export type RetrievalValues = Record<
  `${(typeof RETRIEVAL_METRICS)[number]}@${number}` | `map@${number}`,
  number
>;

/**
 * How well documents were found, as sentence-transformers' InformationRetrievalEvaluator computes it: accuracy@k is the part
 * of the queries with a relevant document among the first k; precision@k divides by k however few documents there are;
 * recall@k by all relevant documents; map@100 by at most 100 of them. ndcg@k takes grades as they are for gains (of
 * equal grades it is that of sentence-transformers, which knows no other), as trec_eval does.
 * @param hits Documents found for each query, the best first; each at least as deep as the greatest k, unless there are no more.
 * @param relevance Of the same queries.
 * @throws USAGE when the lengths differ, DATA_EMPTY without queries or where one has no relevant document.
 */
export function retrievalMetrics(
  hits: readonly Int32Array[],
  relevance: readonly Relevance[],
  ks: readonly number[],
): RetrievalValues {
  if (hits.length !== relevance.length) {
    throw new PeftTrainError(
      "USAGE",
      `expected relevant documents for each query, got ${relevance.length} for ${hits.length}`,
    );
  }
  if (hits.length === 0) throw new PeftTrainError("DATA_EMPTY", "there are no queries to measure");
  const sums = new Map<string, number>();
  const add = (name: string, value: number): void => void sums.set(name, (sums.get(name) ?? 0) + value);
  for (const [query, found] of hits.entries()) {
    const relevant = relevance[query] as Relevance;
    if (relevant.size === 0) {
      throw new PeftTrainError("DATA_EMPTY", `query ${query} has no relevant document`);
    }
    const gains = Float64Array.from(found, (document) => relevant.get(document) ?? 0);
    const ideal = Float64Array.from(relevant.values()).sort().reverse();
    const first = gains.findIndex((gain) => gain > 0);
    for (const k of ks) {
      const right = gains.subarray(0, k).reduce((sum, gain) => sum + (gain > 0 ? 1 : 0), 0);
      add(`accuracy@${k}`, right > 0 ? 1 : 0);
      add(`precision@${k}`, right / k);
      add(`recall@${k}`, right / relevant.size);
      add(`mrr@${k}`, first >= 0 && first < k ? 1 / (first + 1) : 0);
      add(`ndcg@${k}`, discounted(gains, k) / discounted(ideal, k));
    }
    add(`map@${MAP_DEPTH}`, averagePrecision(gains, relevant.size));
  }
  return Object.fromEntries([...sums].map(([name, sum]) => [name, sum / hits.length])) as RetrievalValues;
}

/** The first k gains, each over the logarithm of its place (Järvelin and Kekäläinen 2002). */
function discounted(gains: Float64Array, k: number): number {
  return gains.subarray(0, k).reduce((sum, gain, i) => sum + gain / Math.log2(i + 2), 0);
}

function averagePrecision(gains: Float64Array, relevant: number): number {
  let [right, sum] = [0, 0];
  for (const [i, gain] of gains.subarray(0, MAP_DEPTH).entries()) {
    if (gain > 0) sum += ++right / (i + 1);
  }
  return sum / Math.min(MAP_DEPTH, relevant);
}
