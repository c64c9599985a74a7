import { createHash } from "node:crypto";
import { PeftTrainError } from "../errors.js";
import { pairBatch, seedWords } from "./batch.js";
import { fileSize } from "./file-size.js";
import { labelOf } from "./label.js";
import { MT19937 } from "./mt19937.js";
import { columnIndex, openTable } from "./table.js";
import { TokenBuffer } from "./token-buffer.js";
import type { Tokenizer } from "./tokenizer.js";

/** Names of the columns to read. */
export interface PairColumns {
  question1: string;
  question2: string;
  label: string;
}

export const DEFAULT_COLUMNS: PairColumns = {
  question1: "question1",
  question2: "question2",
  label: "is_duplicate",
};

export interface PairSource {
  path: string;
  columns?: Partial<PairColumns>;
  /** Put before every first and every second text, such as `query: `. */
  question1Prefix: string;
  question2Prefix: string;
  /** Tokens of a text, [CLS] and [SEP] counted. */
  maxLength: number;
}

/** Pairs held as packed token ids, never as strings. Text 2i and 2i + 1 are pair i. */
export interface PairDataset {
  path: string;
  /** SHA-256 of the file's bytes, in hexadecimal. */
  sha256: string;
  count: number;
  /** Pairs with label 1; 0 or `count` means that there is one class only. */
  positives: number;
  ids: Int32Array;
  /** Text i is `ids[offsets[i] .. offsets[i + 1])`; 2 count + 1 entries. */
  offsets: Float64Array;
  labels: Float32Array;
}

const PAIRS_AT_A_TIME = 512;

/**
 * Reads a CSV or TSV file of labelled pairs and tokenises it as it streams: 4 bytes a token are kept, and no text.
 * @param onProgress Bytes of the file read and in all (0 where that cannot be known, as for a pipe).
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_EMPTY, DATA_COLUMN, DATA_LABEL or DATA_MALFORMED.
 */
export async function loadPairs(
  source: PairSource,
  tokenizer: Tokenizer,
  onProgress?: (bytesRead: number, bytesTotal: number) => void,
): Promise<PairDataset> {
  const bytesTotal = await fileSize(source.path);
  const hash = createHash("sha256");
  let bytesRead = 0;
  const table = await openTable(source.path, (bytes) => {
    hash.update(bytes);
    bytesRead += bytes.length;
    onProgress?.(bytesRead, bytesTotal);
  });
  const names = { ...DEFAULT_COLUMNS, ...source.columns };
  const question1 = columnIndex(table, names.question1);
  const question2 = columnIndex(table, names.question2);
  const label = columnIndex(table, names.label);

  const tokens = new TokenBuffer(1 << 16, 1 << 12);
  const labels: number[] = [];
  let positives = 0;
  let texts: string[] = [];
  const flush = async (): Promise<void> => {
    if (texts.length > 0) tokens.pushBatch(await tokenizer.encode(texts, source.maxLength));
    texts = [];
  };
  for await (const records of table.records) {
    for (const record of records) {
      const value = labelOf(source.path, record, label, names.label);
      labels.push(value);
      positives += value;
      texts.push(source.question1Prefix + (record.fields[question1] as string));
      texts.push(source.question2Prefix + (record.fields[question2] as string));
      if (texts.length === 2 * PAIRS_AT_A_TIME) await flush();
    }
  }
  await flush();
  if (labels.length === 0) {
    throw new PeftTrainError("DATA_EMPTY", `${source.path} has a header and no rows below it`, {
      hint: "Expected one pair a row.",
    });
  }
  const { ids, offsets } = tokens.finish();
  return {
    path: source.path,
    sha256: hash.digest("hex"),
    count: labels.length,
    positives,
    ids,
    offsets,
    labels: Float32Array.from(labels),
  };
}

/**
 * Draws `fraction` of the pairs, rounded, for evaluation and leaves the rest for training; both keep the file's order.
 * The same seed draws the same pairs: the first of `RandomState([seed % 2**32, seed // 2**32, 2**32 - 1]).permutation`.
 * @throws USAGE when `fraction` is not between 0 and 1, DATA_EMPTY when there are too few pairs for two sets.
 */
export function splitPairs(
  dataset: PairDataset,
  fraction: number,
  seed: number,
): { train: PairDataset; eval: PairDataset } {
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

/** The pairs of `indices`, in that order. */
function subset(dataset: PairDataset, indices: Int32Array): PairDataset {
  const { ids, cuSeqlens, labels } = pairBatch(dataset, indices);
  return {
    path: dataset.path,
    sha256: dataset.sha256,
    count: indices.length,
    positives: labels.reduce((sum, label) => sum + label, 0),
    ids,
    offsets: Float64Array.from(cuSeqlens),
    labels,
  };
}
