import { setImmediate } from "node:timers/promises";
import type { RetrievalSet } from "../../data/retrieval-set.js";
import { type EncodingEngine, embedTexts, gatherTexts } from "../../embed.js";
import { PeftTrainError } from "../../errors.js";
import { MAP_DEPTH, type RetrievalValues, retrievalMetrics } from "../../metrics/retrieval.js";
import { TopHits } from "../../metrics/top-hits.js";
import { distinctTexts } from "./evaluate.js";

/** How well documents of a corpus are found by cosine similarity. */
export type RetrievalMetrics = {
  /** That have a relevant document. */
  queries: number;
  /** In the corpus. */
  documents: number;
} & RetrievalValues;

export const DEFAULT_KS: readonly number[] = [1, 3, 5, 10];

const MOST_K = 1000;

/** @throws USAGE for a k that is none. */
export function checkedKs(
  given: readonly (number | string)[] | undefined,
  name = "ks",
): readonly number[] | undefined {
  if (given === undefined) return undefined;
  if (!Array.isArray(given)) {
    throw new PeftTrainError("USAGE", `${name}: expected an array of numbers, found ${typeof given}`);
  }
  const ks = given.map((k) => (typeof k === "number" || /^\s*\d+\s*$/.test(k) ? Number(k) : Number.NaN));
  if (ks.length > 0 && ks.every((k) => Number.isInteger(k) && k >= 1 && k <= MOST_K)) return [...new Set(ks)];
  throw new PeftTrainError(
    "USAGE",
    `${name}=${given.join(",")}: expected whole numbers from 1 to ${MOST_K} with commas between`,
  );
}

export interface EvaluateRetrievalOptions {
  /** Texts encoded at a time. */
  batchSize: number;
  /** False measures the base model. */
  adapter: boolean | string;
  /** Where accuracy, precision, recall, MRR and nDCG are measured. */
  ks: readonly number[];
  /** Pass over the document that has the id of the query, as BEIR does. */
  ignoreIdenticalIds: boolean;
  onProgress?: ((textsDone: number, textsTotal: number) => void) | undefined;
  stopped?: (() => boolean) | undefined;
}

/** Distinct texts whose vectors are held at a time, beside those of the queries: 50 MB of 384 numbers. */
const TEXTS_AT_A_TIME = 32_768;
const QUERIES_A_TURN = 16;

/**
 * Ranks all documents for every query and measures the ranking; undefined when it was stopped. Each distinct text is
 * embedded once, a query that is in the corpus too.
 */
export async function evaluateRetrieval(
  encoder: EncodingEngine,
  set: RetrievalSet,
  options: EvaluateRetrievalOptions,
): Promise<RetrievalMetrics | undefined> {
  const { queries, documents, ranks, twins, relevance } = set;
  const { texts, indices } = distinctTexts(set, 0, queries + documents);
  const count = texts.offsets.length - 1;
  const depth = Math.max(MAP_DEPTH, ...options.ks);
  const hits = Array.from({ length: queries }, () => new TopHits(depth, ranks));
  const documentsOf = placesByText(indices.subarray(queries), count);
  // Distinct texts are in the order of their first place: those of the queries come first.
  const ofQueries = indices.subarray(0, queries).reduce((most, index) => Math.max(most, index + 1), 0);
  let queryVectors: Float32Array | undefined;
  for (let start = 0; start < count; ) {
    const end = start === 0 ? ofQueries : Math.min(count, start + TEXTS_AT_A_TIME);
    const some = gatherTexts(
      texts,
      Int32Array.from({ length: end - start }, (_, i) => start + i),
    );
    const vectors = await embedTexts(
      encoder,
      { ids: some.ids, offsets: some.cuSeqlens },
      {
        adapter: options.adapter,
        normalize: true,
        textsPerCall: options.batchSize,
        onProgress: (done) => options.onProgress?.(start + done, count),
        stopped: options.stopped,
      },
    );
    if (vectors === undefined) return undefined;
    queryVectors ??= vectors;
    for (let query = 0; query < queries; query++) {
      // Otherwise a signal would wait for the whole of a large corpus.
      if (query % QUERIES_A_TURN === 0) await setImmediate();
      if (options.stopped?.()) return undefined;
      const a = indices[query] as number;
      const ignored = options.ignoreIdenticalIds ? (twins[query] as number) : -1;
      for (let text = start; text < end; text++) {
        const found = documentsOf(text);
        if (found.length === 0) continue;
        const cosine = dot(queryVectors, a, vectors, text - start, vectors.length / (end - start));
        for (const document of found)
          if (document !== ignored) (hits[query] as TopHits).offer(document, cosine);
      }
    }
    start = end;
  }
  const found = hits.map((hit) => hit.documents);
  return { queries, documents, ...retrievalMetrics(found, relevance, options.ks) };
}

/** For every distinct text the documents that have it. */
function placesByText(indices: Int32Array, texts: number): (text: number) => Int32Array {
  const starts = new Int32Array(texts + 1);
  for (const text of indices) starts[text + 1] = (starts[text + 1] as number) + 1;
  for (let text = 0; text < texts; text++) {
    starts[text + 1] = (starts[text + 1] as number) + (starts[text] as number);
  }
  const next = starts.slice();
  const places = new Int32Array(indices.length);
  for (const [place, text] of indices.entries()) {
    places[next[text] as number] = place;
    next[text] = (next[text] as number) + 1;
  }
  return (text) => places.subarray(starts[text], starts[text + 1]);
}

/** Of row i of `a` and row j of `b`, of `width` numbers each. */
function dot(a: Float32Array, i: number, b: Float32Array, j: number, width: number): number {
  let sum = 0;
  for (let at = 0; at < width; at++) sum += (a[i * width + at] as number) * (b[j * width + at] as number);
  return sum;
}
