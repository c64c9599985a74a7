import { realpath, stat } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { AtomicFile } from "./atomic-file.js";
import { openCsvTable } from "./csv-table.js";
import { csvLine } from "./csv-writer.js";
import { outputError } from "./file-error.js";
import { fileSize } from "./file-size.js";
import { labelOf } from "./label.js";
import { makeFolder } from "./make-folder.js";
import { MT19937 } from "./mt19937.js";
import { columnIndex } from "./table.js";

export interface PrepareOptions {
  /** Raw Quora question pairs: a .tsv or .csv with at least id, question1, question2 and is_duplicate. */
  input: string;
  /** Folder for train.csv and test.csv; made where it is missing. */
  outputDir: string;
  /** Both questions must be longer than this, in Unicode code points as Python's `len` counts. */
  minChars: number;
  /** Both questions must be shorter than this. */
  maxChars: number;
  trainFraction: number;
  /** Seed of numpy's RandomState, from 0 to 2^32 - 1. */
  seed: number;
  /** Replace train.csv and test.csv that are there already. */
  force: boolean;
  onProgress?: (bytesRead: number, bytesTotal: number) => void;
  signal?: AbortSignal;
}

export interface PreparedFile {
  path: string;
  rows: number;
  positives: number;
}

export interface PrepareResult {
  rowsRead: number;
  /** Rows with a question too short, and of the others those with one too long. */
  tooShort: number;
  tooLong: number;
  train: PreparedFile;
  test: PreparedFile;
}

/** What the article used: 91,218 pairs, of which 73,011 are for training and 18,207 for the test. */
export const ARTICLE_SPLIT = { minChars: 60, maxChars: 268, trainFraction: 0.8, seed: 42 } as const;

const COLUMNS = ["id", "question1", "question2", "is_duplicate"] as const;

/**
 * Cuts raw question pairs to those of middling length and parts them into train.csv and test.csv, in the order of the
 * file. Row k of those kept is for training where value k of numpy's `RandomState(seed).rand(n)` is below the fraction.
 * @throws USAGE, OUTPUT_EXISTS, OUTPUT_UNWRITABLE, ABORTED, or what reading a table throws; nothing is left half-written.
 */
export async function prepareSplit(options: PrepareOptions): Promise<PrepareResult> {
  checkOptions(options);
  const bytesTotal = await fileSize(options.input);
  let bytesRead = 0;
  const table = await openCsvTable(options.input, (bytes) => {
    bytesRead += bytes.length;
    options.onProgress?.(bytesRead, bytesTotal);
  });
  const [id, question1, question2, label] = COLUMNS.map((name) => columnIndex(table, name)) as [
    number,
    number,
    number,
    number,
  ];
  const paths = await outputPaths(options);
  await using train = new PartWriter(await AtomicFile.create(paths.train));
  await using test = new PartWriter(await AtomicFile.create(paths.test));
  const generator = new MT19937(options.seed);
  let [rowsRead, tooShort, tooLong] = [0, 0, 0];
  for await (const records of table.records) {
    if (options.signal?.aborted) throw new PeftTrainError("ABORTED", "stopped; nothing was written");
    for (const record of records) {
      rowsRead++;
      const positive = labelOf(options.input, record, label, COLUMNS[3]);
      const texts = [record.fields[question1] as string, record.fields[question2] as string];
      const lengths = texts.map(codePoints);
      if (Math.min(...lengths) <= options.minChars) tooShort++;
      else if (Math.max(...lengths) >= options.maxChars) tooLong++;
      else {
        const part = generator.double() < options.trainFraction ? train : test;
        await part.write([record.fields[id] as string, ...texts, String(positive)], positive);
      }
    }
  }
  for (const [name, part] of Object.entries({ train, test })) {
    if (part.rows > 0) continue;
    throw new PeftTrainError(
      "DATA_EMPTY",
      `no pair is left for ${name}.csv: of ${rowsRead} rows ${tooShort} have a question of at most ` +
        `${options.minChars} characters, and ${tooLong} more have one of at least ${options.maxChars}`,
    );
  }
  await train.commit();
  await test.commit();
  return { rowsRead, tooShort, tooLong, train: train.result(), test: test.result() };
}

/** Writes one part of the split and counts it. */
class PartWriter implements AsyncDisposable {
  rows = 0;
  private positives = 0;
  private text = csvLine(COLUMNS);

  constructor(private readonly file: AtomicFile) {}

  async write(fields: string[], positive: 0 | 1): Promise<void> {
    this.rows++;
    this.positives += positive;
    this.text += csvLine(fields);
    if (this.text.length > 1 << 16) await this.flush();
  }

  async commit(): Promise<void> {
    await this.flush();
    await this.file.commit();
  }

  result(): PreparedFile {
    return { path: this.file.path, rows: this.rows, positives: this.positives };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.file.abort();
  }

  private async flush(): Promise<void> {
    const { text } = this;
    this.text = "";
    await this.file.write(text);
  }
}

/** Length as Python's `len` counts it: a surrogate pair is one character. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let i = 0; i + 1 < text.length; i++) {
    const high = text.charCodeAt(i);
    if (high < 0xd800 || high > 0xdbff) continue;
    const low = text.charCodeAt(i + 1);
    if (low < 0xdc00 || low > 0xdfff) continue;
    count--;
    i++;
  }
  return count;
}

function checkOptions(options: PrepareOptions): void {
  const { minChars, maxChars, trainFraction, seed } = options;
  const problem =
    !Number.isInteger(minChars) || minChars < 0
      ? `min_chars must be a whole number from 0, got ${minChars}`
      : !Number.isInteger(maxChars) || maxChars < minChars + 2
        ? `max_chars must be a whole number that leaves a length above min_chars (${minChars}), got ${maxChars}`
        : !(trainFraction > 0 && trainFraction < 1)
          ? `train_fraction must lie between 0 and 1, got ${trainFraction}`
          : !Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32
            ? `seed must be a whole number from 0 to 4294967295, as numpy takes it, got ${seed}`
            : undefined;
  if (problem !== undefined) throw new PeftTrainError("USAGE", problem);
}

/** Paths of both outputs in a folder that is there. */
async function outputPaths(options: PrepareOptions): Promise<{ train: string; test: string }> {
  try {
    await makeFolder(options.outputDir);
  } catch (cause) {
    throw outputError(options.outputDir, cause);
  }
  const input = await realpath(options.input);
  const paths = {
    train: path.join(options.outputDir, "train.csv"),
    test: path.join(options.outputDir, "test.csv"),
  };
  for (const file of Object.values(paths)) {
    if ((await stat(file).catch(() => undefined)) === undefined) continue;
    if ((await realpath(file)) === input) {
      throw new PeftTrainError("USAGE", `${file} is the input itself`, {
        hint: "Name another --output_dir.",
      });
    }
    if (options.force) continue;
    throw new PeftTrainError("OUTPUT_EXISTS", `${file} is there already`, {
      hint: "Name another --output_dir, or replace it with --force.",
    });
  }
  return paths;
}
