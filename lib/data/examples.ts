import { createHash } from "node:crypto";
import { PeftTrainError } from "../errors.js";
import { exampleBatch, seedWords } from "./batch.js";
import { type ExampleFormat, type ExampleKind, exampleLayout } from "./example-layout.js";
import { fileSize } from "./file-size.js";
import { MT19937 } from "./mt19937.js";
import type { Vectors } from "./npy-reader.js";
import { openTable } from "./open-table.js";
import { TokenBuffer } from "./token-buffer.js";
import type { Tokenizer } from "./tokenizer.js";

export interface ExampleSource extends ExampleFormat {
  path: string;
  /** Put before every first text, and before every other one, such as `query: `. */
  question1Prefix: string;
  question2Prefix: string;
  /** Tokens of a text, [CLS] and [SEP] counted. */
  maxLength: number;
}

/**
 * Examples held as packed token ids, never as strings. An example is k texts: one, those of a pair, or an anchor, its
 * positive and its negatives; texts k i to k i + k - 1 are example i.
 */
export interface ExampleDataset {
  path: string;
  /** SHA-256 of the file's bytes, in hexadecimal. */
  sha256: string;
  kind: ExampleKind;
  textsPerExample: number;
  count: number;
  /** Pairs with label 1; 0 or `count` means that there is one class only. 0 for other kinds. */
  positives: number;
  ids: Int32Array;
  /** Text i is `ids[offsets[i] .. offsets[i + 1])`; one more entry than there are texts. */
  offsets: Float64Array;
  /** A label or score an example, or its target vector; empty where there is none. */
  labels: Float32Array;
  /** Which records of the file the examples are, from 0; undefined where they are all of them. */
  records?: Int32Array;
}

const TEXTS_AT_A_TIME = 1024;

/**
 * Reads a file of examples and tokenises it as it streams: 4 bytes a token are kept, and no text.
 * @param onProgress Bytes of the file read and in all (0 where that cannot be known, as for a pipe).
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY, DATA_COLUMN, DATA_LABEL or DATA_MALFORMED.
 */
export async function loadExamples(
  source: ExampleSource,
  tokenizer: Tokenizer,
  onProgress?: (bytesRead: number, bytesTotal: number) => void,
): Promise<ExampleDataset> {
  const bytesTotal = await fileSize(source.path);
  const hash = createHash("sha256");
  let bytesRead = 0;
  const table = await openTable(source.path, (bytes) => {
    hash.update(bytes);
    bytesRead += bytes.length;
    onProgress?.(bytesRead, bytesTotal);
  });
  const { kind, texts: columns, label } = exampleLayout(table, source);

  const tokens = new TokenBuffer(1 << 16, 1 << 12);
  const labels: number[] = [];
  let positives = 0;
  let count = 0;
  let texts: string[] = [];
  const flush = async (): Promise<void> => {
    if (texts.length > 0) tokens.pushBatch(await tokenizer.encode(texts, source.maxLength));
    texts = [];
  };
  for await (const records of table.records) {
    for (const record of records) {
      if (label !== undefined) {
        const value = label(record);
        labels.push(value);
        if (kind === "labels") positives += value;
      }
      count++;
      for (const [i, column] of columns.entries()) {
        const prefix = i === 0 ? source.question1Prefix : source.question2Prefix;
        texts.push(prefix + (record.fields[column] as string));
      }
      if (texts.length >= TEXTS_AT_A_TIME) await flush();
    }
  }
  await flush();
  if (count === 0) {
    throw new PeftTrainError("DATA_EMPTY", `${source.path} has a header and no rows below it`, {
      hint: "Expected one example a row.",
    });
  }
  const { ids, offsets } = tokens.finish();
  return {
    path: source.path,
    sha256: hash.digest("hex"),
    kind,
    textsPerExample: columns.length,
    count,
    positives,
    ids,
    offsets,
    labels: Float32Array.from(labels),
  };
}

/**
 * Draws `fraction` of the examples, rounded, for evaluation and leaves the rest for training; both keep the file's order.
 * The same seed draws the same ones: the first of `RandomState([seed % 2**32, seed // 2**32, 2**32 - 1]).permutation`.
 * @throws USAGE when `fraction` is not between 0 and 1, DATA_EMPTY when there are too few examples for two sets.
 */
export function splitExamples(
  dataset: ExampleDataset,
  fraction: number,
  seed: number,
): { train: ExampleDataset; eval: ExampleDataset } {
  if (!(fraction > 0 && fraction < 1)) {
    throw new PeftTrainError(
      "USAGE",
      `the fraction for evaluation must lie between 0 and 1, got ${fraction}`,
    );
  }
  if (dataset.count < 2) {
    throw new PeftTrainError("DATA_EMPTY", `${dataset.path} has one pair only, too few to set some apart`);
  }
  const size = Math.min(dataset.count - 1, Math.max(1, Math.round(dataset.count * fraction)));
  const order = new MT19937([...seedWords(seed), 0xffffffff]).permutation(dataset.count);
  return {
    train: subset(dataset, order.slice(size).sort()),
    eval: subset(dataset, order.slice(0, size).sort()),
  };
}

/** The texts with the vectors that they are to get. @throws DATA_MALFORMED unless there is one for each, of `width` numbers. */
export function withTargets(dataset: ExampleDataset, vectors: Vectors, width: number): ExampleDataset {
  const { path, rows, columns, values } = vectors;
  if (rows !== dataset.count || columns !== width) {
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${path}: expected ${dataset.count} vectors of ${width} numbers, one for each text of ${dataset.path}, found ${rows} of ${columns}`,
    );
  }
  return { ...dataset, labels: values };
}

/** The pairs with label 1, as pairs without labels. */
export function positivePairs(dataset: ExampleDataset): ExampleDataset {
  const positive = Array.from(dataset.labels.keys()).filter((i) => dataset.labels[i] === 1);
  const pairs = subset(dataset, Int32Array.from(positive));
  return { ...pairs, kind: "positives", positives: 0, labels: new Float32Array(0) };
}

/** The first `most` examples. */
export function firstExamples(dataset: ExampleDataset, most: number): ExampleDataset {
  const count = Math.min(dataset.count, most);
  return subset(
    dataset,
    Int32Array.from({ length: count }, (_, i) => i),
  );
}

/** The examples of `indices`, in that order. */
export function subset(dataset: ExampleDataset, indices: Int32Array): ExampleDataset {
  const { ids, cuSeqlens, labels } = exampleBatch(dataset, indices);
  return {
    ...dataset,
    count: indices.length,
    positives: dataset.kind === "labels" ? labels.reduce((sum, label) => sum + label, 0) : 0,
    ids,
    offsets: Float64Array.from(cuSeqlens),
    labels,
    records: indices.map((i) => dataset.records?.[i] ?? i),
  };
}
