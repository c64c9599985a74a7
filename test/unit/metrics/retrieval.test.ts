import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { type Relevance, retrievalMetrics } from "../../../lib/metrics/retrieval.js";
import { TopHits } from "../../../lib/metrics/top-hits.js";

type Draw = [
  seed: number,
  queries: number,
  documents: number,
  distinct: number,
  width: number,
  chance: number,
];
interface Golden {
  ks: number[];
  cases: { name: string; draw: Draw; values: Record<string, number>; graded: Record<string, number> }[];
}

const golden: Golden = JSON.parse(
  readFileSync(path.join(import.meta.dirname, "../../fixtures/metrics/retrieval.json"), "utf8"),
);

/** The same as `draw` in test/fixtures/metrics/make_retrieval_golden.py. */
function draw([seed, queries, documents, distinct, width, chance]: Draw) {
  let state = seed;
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
  const vector = () => Array.from({ length: width }, () => Math.floor(next() * 15) - 7);
  const rows = Array.from({ length: distinct }, vector);
  const corpus = Array.from({ length: documents }, (_, i) => rows[i % distinct] as number[]);
  const ids = corpus.map(
    (_, i) => String.fromCodePoint((i % 7 === 0 ? 0x1f600 : 0xff00) + i) + ((i * 7919) % documents),
  );
  const vectors = Array.from({ length: queries }, vector);
  const grades = vectors.map(() => {
    const found = new Map<number, number>();
    for (let i = 0; i < documents; i++) if (next() < chance) found.set(i, 1 + Math.floor(next() * 3));
    return found.set(Math.floor(next() * documents), 2);
  });
  return { corpus, ids, vectors, grades };
}

function ranksOf(ids: readonly string[]): Int32Array {
  const sorted = ids.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return Int32Array.from(ids, (id) => sorted.indexOf(id));
}

function search(drawn: ReturnType<typeof draw>, order: (documents: number[]) => number[]): Int32Array[] {
  const ranks = ranksOf(drawn.ids);
  return drawn.vectors.map((query) => {
    const hits = new TopHits(100, ranks);
    for (const document of order([...drawn.corpus.keys()])) {
      const row = drawn.corpus[document] as number[];
      hits.offer(
        document,
        query.reduce((sum, x, i) => sum + x * (row[i] as number), 0),
      );
    }
    return hits.documents;
  });
}

describe("retrieval, as sentence-transformers measures it", () => {
  for (const { name, draw: how, values, graded } of golden.cases) {
    it(name, () => {
      const drawn = draw(how);
      const hits = search(drawn, (documents) => documents);
      const binary = drawn.grades.map((found) => new Map([...found.keys()].map((document) => [document, 1])));
      const measured: Record<string, number> = retrievalMetrics(hits, binary, golden.ks);
      expect(Object.keys(measured).sort()).toEqual(Object.keys(values).sort());
      // Sums of at most 100 doubles, taken in another order.
      for (const [metric, value] of Object.entries(values))
        expect(measured[metric], metric).toBeCloseTo(value, 13);
      const withGrades: Record<string, number> = retrievalMetrics(hits, drawn.grades, golden.ks);
      for (const [metric, value] of Object.entries(graded)) {
        expect(withGrades[metric], `graded ${metric}`).toBeCloseTo(value, 13);
      }
    });
  }

  it("whatever the order in which documents are offered", () => {
    const drawn = draw([2, 20, 200, 40, 8, 0.05]);
    expect(search(drawn, (documents) => documents.toReversed())).toEqual(search(drawn, (all) => all));
  });

  it("counts a document that the corpus has not as never found", () => {
    const relevance: Relevance[] = [
      new Map([
        [0, 1],
        [-1, 1],
      ]),
    ];
    expect(retrievalMetrics([Int32Array.of(0, 1)], relevance, [1, 10])).toMatchObject({
      "recall@10": 0.5,
      "precision@10": 0.1,
      "accuracy@1": 1,
      "map@100": 0.5,
    });
  });

  it("is undefined without queries, or for one without a relevant document", () => {
    expect(() => retrievalMetrics([], [], [1])).toThrow("there are no queries");
    expect(() => retrievalMetrics([Int32Array.of(0)], [new Map()], [1])).toThrow("no relevant document");
    expect(() => retrievalMetrics([], [new Map()], [1])).toThrow("got 1 for 0");
  });
});
