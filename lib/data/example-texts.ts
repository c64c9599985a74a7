import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { PeftTrainError } from "../errors.js";
import { type ExampleFormat, exampleLayout } from "./example-layout.js";
import type { ExampleDataset } from "./examples.js";
import { fileError } from "./file-error.js";
import { openTable } from "./open-table.js";

export interface ExampleTexts {
  /** As "row 12", or "line 12" of a file that has lines only. */
  place: string;
  /** Without a prefix. */
  texts: string[];
}

/**
 * Reads the texts of some examples again, for a set keeps their ids alone: one more pass over its file.
 * @param examples Their places in the set.
 * @throws FILE_UNREADABLE where the file cannot be read twice or is another by now; what `loadExamples` throws.
 */
export async function readExampleTexts(
  dataset: ExampleDataset,
  examples: readonly number[],
  columns: ExampleFormat["columns"],
): Promise<ExampleTexts[]> {
  const { path, kind, records, sha256 } = dataset;
  const found = await stat(path).catch((cause: unknown) => {
    throw fileError(path, cause);
  });
  if (!found.isFile()) {
    throw new PeftTrainError("FILE_UNREADABLE", `${path} is no file that can be read a second time`);
  }
  const wanted = new Map(examples.map((example) => [records?.[example] ?? example, example]));
  const texts = new Map<number, ExampleTexts>();
  const hash = createHash("sha256");
  const table = await openTable(path, (bytes) => hash.update(bytes));
  const layout = exampleLayout(table, { kinds: [kind], ...(columns && { columns }) });
  let index = 0;
  for await (const group of table.records) {
    for (const record of group) {
      const example = wanted.get(index++);
      if (example === undefined) continue;
      const place = record.row === undefined ? `line ${record.line}` : `row ${record.row}`;
      texts.set(example, { place, texts: layout.texts.map((column) => record.fields[column] as string) });
    }
  }
  if (hash.digest("hex") !== sha256) {
    throw new PeftTrainError("FILE_UNREADABLE", `${path} has changed since the run began`);
  }
  return examples.map((example) => texts.get(example) as ExampleTexts);
}
