import { mkdirSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import { FakeEngine } from "../support/fake-engine.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const lines = (rows: object[]) => rows.map((row) => JSON.stringify(row)).join("\n");
const CORPUS = [
  { _id: "d1", title: "a b", text: "c d" },
  { _id: "d2", title: "", text: "a b c d" },
  { _id: "d3", title: "", text: "e f g" },
  { _id: "d4", title: "", text: "h i j" },
];
const QUERIES = [
  { _id: "q1", text: "a b c d" },
  { _id: "d3", text: "e f" },
  { _id: "q3", text: "nobody judged this" },
];
const QRELS = "query-id\tcorpus-id\tscore\nq1\td2\t1\nd3\td3\t2\nd3\td4\t0\nq3\td1\t0\n";

let number = 0;
let folder: string;
let engine: FakeEngine;

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
});

beforeEach(() => {
  folder = temporary.path(`beir-${number++}`);
  engine = new FakeEngine();
  mkdirSync(`${folder}/qrels`, { recursive: true });
  writeFileSync(`${folder}/corpus.jsonl`, lines(CORPUS));
  writeFileSync(`${folder}/queries.jsonl.gz`, gzipSync(lines(QUERIES)));
  writeFileSync(`${folder}/qrels/test.tsv`, QRELS);
});

async function measure(
  options: Parameters<Encoder["evaluateRetrieval"]>[1] = {},
  from?: Parameters<Encoder["evaluateRetrieval"]>[0],
) {
  await using encoder = await Encoder.load(temporary.path("model"), { engine: () => engine });
  return await encoder.evaluateRetrieval(from ?? folder, { queryPrefix: "", corpusPrefix: "", ...options });
}

describe("a folder in BEIR's layout", () => {
  it("is ranked and measured; equal scores go by id", async () => {
    const notes: string[] = [];
    const metrics = await measure({ onNote: (note) => notes.push(note) });
    expect(metrics).toMatchObject({ queries: 2, documents: 4, "recall@3": 1 });
    // d1 is "a b c d" with its title, as d2 is, and comes before it.
    expect(metrics["accuracy@1"]).toBe(0.5);
    expect(metrics["mrr@10"]).toBe(0.75);
    expect(notes).toEqual([
      expect.stringMatching(/^1 queries of .*queries\.jsonl\.gz have no relevant document/),
    ]);
  });

  it("embeds each distinct text once, a query that is in the corpus too", async () => {
    await measure();
    const texts = engine.encoded.reduce((sum, { batch }) => sum + batch.cuSeqlens.length - 1, 0);
    expect(texts).toBe(4); // a b c d, e f; e f g, h i j
  });

  it("takes prefixes for queries and for documents", async () => {
    await measure({ queryPrefix: "x ", corpusPrefix: "y z " });
    const tokens = engine.encoded.flatMap(({ batch }) =>
      [...batch.cuSeqlens.slice(1)].map((end, i) => end - (batch.cuSeqlens[i] as number)),
    );
    expect(tokens.sort()).toEqual([5, 7, 7, 7, 8].sort());
  });

  it("passes over the document with the id of the query where that is asked for", async () => {
    const metrics = await measure({ ignoreIdenticalIds: true, ks: [10] });
    expect(metrics["recall@10"]).toBe(0.5);
  });

  it("may be three files of other formats", async () => {
    writeFileSync(`${folder}/corpus.csv`, "id,text\nd1,a b c d\nd2,a b c\n");
    writeFileSync(`${folder}/queries.tsv`, "id\ttext\nq1\ta b c d\n");
    writeFileSync(`${folder}/qrels.csv`, "query-id,corpus-id\nq1,d1\nq1,gone\n");
    const notes: string[] = [];
    const files = {
      corpus: `${folder}/corpus.csv`,
      queries: `${folder}/queries.tsv`,
      qrels: `${folder}/qrels.csv`,
    };
    const metrics = await measure({ onNote: (note) => notes.push(note), ks: [1] }, files);
    expect(metrics).toMatchObject({ "accuracy@1": 1, "recall@1": 0.5, "ndcg@1": 1 });
    expect(notes).toEqual([expect.stringMatching(/^1 relevant documents of .* are not in .*corpus\.csv/)]);
  });
});

describe("what cannot be measured is refused", () => {
  const refused = async (code: string, message: RegExp) =>
    expect(measure()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });

  it("a folder without the files", async () => {
    mkdirSync(`${folder}/empty/qrels`, { recursive: true });
    await expect(measure({}, `${folder}/empty`)).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
      message: expect.stringMatching(/expected corpus\.jsonl in .*empty, found qrels/),
    });
  });

  it("an id that comes twice", async () => {
    writeFileSync(`${folder}/corpus.jsonl`, lines([...CORPUS, { _id: "d2", title: "", text: "k" }]));
    await refused("DATA_MALFORMED", /corpus\.jsonl, line 5: the id "d2" was there before/);
  });

  it("qrels of TREC", async () => {
    writeFileSync(`${folder}/qrels/test.tsv`, "q1 0 d2 1\n");
    await refused("DATA_COLUMN", /looks like a qrels file of TREC/);
  });

  it("a score that is no number", async () => {
    writeFileSync(`${folder}/qrels/test.tsv`, "query-id\tcorpus-id\tscore\nq1\td2\tyes\n");
    await refused("DATA_LABEL", /test\.tsv, row 2: expected a number in column score, found "yes"/);
  });

  it("queries that nothing is relevant to", async () => {
    writeFileSync(`${folder}/qrels/test.tsv`, "query-id\tcorpus-id\tscore\nq9\td2\t1\n");
    await refused("DATA_EMPTY", /no query of .* has a relevant document in/);
  });

  it("a k that is none", async () => {
    await expect(measure({ ks: [0] })).rejects.toMatchObject({ code: "USAGE" });
    await expect(measure({ ks: [] })).rejects.toMatchObject({ code: "USAGE" });
  });

  it("a run that is told to stop", async () => {
    const stop = new AbortController();
    await expect(measure({ signal: stop.signal, onProgress: () => stop.abort() })).rejects.toMatchObject({
      code: "ABORTED",
    });
  });
});
