import { mkdirSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const runHere = (...more: string[]) =>
  runCli(["eval", "--model_name_or_path=model", ...more], { cwd: temporary.path() });

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  mkdirSync(temporary.path("beir", "qrels"), { recursive: true });
  const letters = [..."abcdefghijkl"];
  const write = (name: string, rows: object[]) =>
    writeFileSync(temporary.path("beir", name), rows.map((row) => JSON.stringify(row)).join("\n"));
  write(
    "corpus.jsonl",
    letters.map((letter, i) => ({ _id: `d${i}`, title: letter, text: `${letter} x ${letter}` })),
  );
  // The same text as its document: the engine must find it first.
  write(
    "queries.jsonl",
    letters.slice(0, 5).map((letter, i) => ({ _id: `q${i}`, text: `${letter} ${letter} x ${letter}` })),
  );
  const lines = letters.slice(0, 5).map((_, i) => `q${i}\td${i}\t1`);
  writeFileSync(
    temporary.path("beir", "qrels", "test.tsv"),
    ["query-id\tcorpus-id\tscore", ...lines].join("\n"),
  );
});

describe("eval on a corpus and queries", () => {
  it("prints a table, and with --json one object", async () => {
    const text = await runHere("--dataset_name=beir", "--k=1,4");
    expect(text.code, text.stderr).toBe(0);
    expect(text.stdout).toMatch(/│ Metric\s+│\s+at 1 │\s+at 4 │/);
    expect(text.stdout).toMatch(/│ Precision │ 1\.0000 │ 0\.2500 │/);
    expect(text.stdout).toMatch(/MAP at 100: 1\.0000\n5 queries over 12 documents of beir in/);
    const json = await runHere(
      "--json",
      "--corpus=beir/corpus.jsonl",
      "--queries=beir/queries.jsonl",
      "--qrels=beir/qrels/test.tsv",
    );
    expect(JSON.parse(json.stdout)).toMatchObject({ queries: 5, documents: 12, "ndcg@10": 1, "map@100": 1 });
  });

  const refused: [title: string, flags: string[], code: number, message: RegExp][] = [
    ["a k that is none", ["--dataset_name=beir", "--k=1,x"], 2, /--k=1,x: expected whole numbers from 1/],
    [
      "a column of pairs",
      ["--dataset_name=beir", "--label_column=l"],
      2,
      /--label_column is of pairs and triplets/,
    ],
    [
      "a file and qrels",
      ["--dataset_name=model/config.json", "--qrels=q.tsv"],
      2,
      /--qrels and --dataset_name=/,
    ],
    [
      "two of three files",
      ["--corpus=c", "--queries=q"],
      2,
      /--qrels is required with --corpus and --queries/,
    ],
    ["--k of pairs", ["--dataset_name=pairs.csv", "--k=3"], 2, /--k is of a test of retrieval/],
    [
      "a folder of something else",
      ["--dataset_name=model"],
      1,
      /expected corpus\.jsonl in model, found config\.json/,
    ],
  ];
  for (const [title, flags, code, message] of refused) {
    it(`refuses ${title} in one line`, async () => {
      const outcome = await runHere(...flags);
      expect(outcome.stderr).toMatch(message);
      expect(outcome.stderr.match(/^error: /gm)).toHaveLength(1);
      expect([outcome.code, outcome.stdout]).toEqual([code, ""]);
    });
  }
});
