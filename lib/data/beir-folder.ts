import { readdir } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { fileError } from "./file-error.js";
import type { RetrievalFiles } from "./retrieval-set.js";

/**
 * The files of a folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv, packed or not.
 * @param qrels In place of qrels/test.tsv.
 * @throws FILE_NOT_FOUND naming what is missing.
 */
export async function beirFiles(folder: string, qrels?: string): Promise<RetrievalFiles> {
  return {
    corpus: await entry(folder, "corpus.jsonl"),
    queries: await entry(folder, "queries.jsonl"),
    qrels: qrels ?? (await entry(path.join(folder, "qrels"), "test.tsv")),
  };
}

async function entry(folder: string, name: string): Promise<string> {
  const names = await readdir(folder).catch((cause: unknown) => {
    throw fileError(folder, cause);
  });
  const found = [name, `${name}.gz`].find((candidate) => names.includes(candidate));
  if (found !== undefined) return path.join(folder, found);
  const there = names.slice(0, 5).join(", ");
  throw new PeftTrainError(
    "FILE_NOT_FOUND",
    `expected ${name} in ${folder}, found ${names.length === 0 ? "nothing" : there}`,
    {
      hint: "A folder must be in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/test.tsv; --qrels names another file.",
    },
  );
}
