import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Papa from "papaparse";
import { epochOrder } from "../dist/data/batch.js";

const COLUMNS = ["question1", "question2", "is_duplicate"];

/** The first `count` rows of a CSV file of pairs; all of them for 0. */
export function readPairs(file, count) {
  const options = { header: true, skipEmptyLines: true, preview: count };
  const { data: rows } = Papa.parse(readFileSync(file, "utf8"), options);
  for (const column of COLUMNS)
    if (rows.length > 0 && rows[0][column] === undefined)
      throw new Error(`${file}: no column ${column}; found ${Object.keys(rows[0]).join(", ")}`);
  if (rows.length < count) throw new Error(`${file}: expected at least ${count} pairs, found ${rows.length}`);
  return rows;
}

export function writePairs(file, rows) {
  writeFileSync(file, Papa.unparse(rows, { columns: COLUMNS, newline: "\n" }));
}

/**
 * The same pairs twice: as the package reads and shuffles them, and, for Python, in the order that this gives, so that
 * step by step both sides train on the same batches.
 */
export function trainingFiles(source, count, seed, folder) {
  const rows = readPairs(source, count);
  const files = { ours: join(folder, "train-ours.csv"), python: join(folder, "train-python.csv") };
  writePairs(files.ours, rows);
  writePairs(
    files.python,
    Array.from(epochOrder(count, seed, 0), (row) => rows[row]),
  );
  return files;
}

/** The first `count` questions of a file with the prefix that E5 models want, as a JSON array in a file. */
export function textsFile(source, count, folder) {
  const rows = readPairs(source, Math.ceil(count / 2));
  const questions = rows.flatMap(({ question1, question2 }) => [question1, question2]).slice(0, count);
  const file = join(folder, "texts.json");
  writeFileSync(file, JSON.stringify(questions.map((question) => `query: ${question}`)));
  return file;
}
