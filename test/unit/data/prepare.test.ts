import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import yargs from "yargs";
import { prepareCommand } from "../../../lib/cli/commands/prepare.js";
import { csvLine } from "../../../lib/data/csv-writer.js";
import {
  ARTICLE_SPLIT,
  codePoints,
  type PrepareOptions,
  type PrepareResult,
  prepareSplit,
} from "../../../lib/data/prepare.js";

const FIXTURE = path.join(import.meta.dirname, "../../fixtures/prepare");
const HEADER = "id,qid1,qid2,question1,question2,is_duplicate\n";

let folder: string;
let output: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-prepare-"));
  output = path.join(folder, "out");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function prepare(input: string, options: Partial<PrepareOptions> = {}): Promise<PrepareResult> {
  return prepareSplit({ ...ARTICLE_SPLIT, input, outputDir: output, force: false, ...options });
}

async function raw(content: string, name = "raw.csv"): Promise<string> {
  const file = path.join(folder, name);
  await writeFile(file, content);
  return file;
}

/** Rows of a given length each, as the raw file has them. */
function rows(count: number, length = 100, label: (i: number) => string = (i) => String(i % 2)): string {
  return Array.from(
    { length: count },
    (_, i) => `${i},0,0,${"a".repeat(length)},${"b".repeat(length)},${label(i)}\n`,
  ).join("");
}

describe("prepareSplit", () => {
  test("writes byte for byte what pandas and numpy make of the same file", async () => {
    const result = await prepare(path.join(FIXTURE, "raw.tsv"));
    expect(await readFile(result.train.path)).toEqual(await readFile(path.join(FIXTURE, "train.csv")));
    expect(await readFile(result.test.path)).toEqual(await readFile(path.join(FIXTURE, "test.csv")));
    expect((await readdir(output)).sort()).toEqual(["test.csv", "train.csv"]);
    expect(result.rowsRead).toBe(250);
    expect(result.rowsRead).toBe(result.tooShort + result.tooLong + result.train.rows + result.test.rows);
    expect(result.train.rows).toBeGreaterThan(result.test.rows);
  });

  test("the same rows as CSV with CR LF and a byte order mark, in other columns, give the same files", async () => {
    const lines = ["is_duplicate,question2,id,question1"];
    for (let i = 0; i < 50; i++) lines.push(`${i % 2},"${"b,".repeat(40)}",${i},${"é".repeat(70)}`);
    const first = await prepare(await raw(`\ufeff${lines.join("\r\n")}\r\n`));
    const bytes = await readFile(first.train.path, "utf8");
    expect(bytes.startsWith("id,question1,question2,is_duplicate\n")).toBe(true);
    expect(bytes).toContain(`,${"é".repeat(70)},"${"b,".repeat(40)}",1\n`);
    const again = await prepare(await raw(`${lines.join("\n")}\n`), {
      outputDir: path.join(folder, "again"),
    });
    expect(await readFile(again.train.path, "utf8")).toBe(bytes);
    expect({ ...again, train: 0, test: 0 }).toEqual({ ...first, train: 0, test: 0 });
  });

  test("lengths are code points, and both bounds are left out", async () => {
    const question = (length: number) => "😀".repeat(length);
    const pairs = [60, 61, 267, 268].flatMap((a) => [60, 61, 267, 268].map((b) => [a, b] as const));
    const content = pairs.map(([a, b], i) => `${i},1,2,${question(a)},${question(b)},0\n`).join("");
    const result = await prepare(await raw(HEADER + content), { trainFraction: 0.5 });
    expect(result.train.rows + result.test.rows).toBe(4);
    expect(result.tooShort).toBe(7);
    expect(result.tooLong).toBe(5);
  });

  test("other bounds, fraction and seed", async () => {
    const file = await raw(HEADER + rows(2000, 10));
    const options = { minChars: 9, maxChars: 11, trainFraction: 0.25 };
    const one = await prepare(file, { ...options, seed: 1 });
    expect(one.train.rows + one.test.rows).toBe(2000);
    expect(Math.abs(one.train.rows - 500)).toBeLessThan(60);
    const two = await prepare(file, { ...options, seed: 2, outputDir: path.join(folder, "two") });
    expect(await readFile(two.test.path, "utf8")).not.toBe(await readFile(one.test.path, "utf8"));
  });

  test("progress ends with the whole file", async () => {
    const file = await raw(HEADER + rows(3000, 100));
    const seen: number[][] = [];
    await prepare(file, { onProgress: (...progress) => void seen.push(progress) });
    const size = (await readFile(file)).length;
    expect(seen.length).toBeGreaterThan(2);
    expect(seen.at(-1)).toEqual([size, size]);
  });
});

describe("what prepareSplit refuses, leaving nothing behind", () => {
  async function refused(run: Promise<unknown>, code: string, message: RegExp): Promise<void> {
    await expect(run).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect((await readdir(output).catch(() => [])).filter((name) => name.startsWith("."))).toEqual([]);
  }

  test("outputs that are there already, unless forced", async () => {
    const file = await raw(HEADER + rows(50));
    await mkdir(output);
    await writeFile(path.join(output, "test.csv"), "mine");
    await refused(prepare(file), "OUTPUT_EXISTS", /test\.csv is there already/);
    expect(await readdir(output)).toEqual(["test.csv"]);
    expect(await readFile(path.join(output, "test.csv"), "utf8")).toBe("mine");
    await prepare(file, { force: true });
    expect(await readFile(path.join(output, "test.csv"), "utf8")).toMatch(/^id,question1/);
  });

  test("an output that is the input", async () => {
    await mkdir(output);
    const file = path.join(output, "train.csv");
    await writeFile(file, HEADER + rows(50));
    await refused(prepare(file, { force: true }), "USAGE", /is the input itself/);
    expect(await readFile(file, "utf8")).toBe(HEADER + rows(50));
  });

  test("a bad row late in the file", async () => {
    const good = HEADER + rows(20_000);
    await refused(
      prepare(await raw(`${good}x,1,2,a\n`)),
      "DATA_MALFORMED",
      /row 20002: expected 6 fields .* found 4/,
    );
    await refused(
      prepare(await raw(`${good}1,1,2,a,b,maybe\n`)),
      "DATA_LABEL",
      /row 20002: .* found "maybe"/,
    );
    await refused(
      prepare(await raw(`${good}1,1,2,"a,b,0\n`)),
      "DATA_MALFORMED",
      /row 20002: .* never closed/,
    );
    expect(await readdir(output)).toEqual([]);
  });

  test("nothing left of the pairs, or nothing for one part", async () => {
    const short = prepare(await raw(HEADER + rows(5, 20)));
    await refused(
      short,
      "DATA_EMPTY",
      /train\.csv: of 5 rows 5 have a question of at most 60 characters, and 0 more/,
    );
    await refused(prepare(await raw(HEADER + rows(1))), "DATA_EMPTY", /no pair is left for test\.csv/);
    await refused(prepare(await raw("")), "DATA_EMPTY", /is empty/);
  });

  test("a missing column, a missing input, a folder that cannot be made", async () => {
    await refused(
      prepare(await raw("id,q1,q2,is_duplicate\n1,a,b,0\n")),
      "DATA_COLUMN",
      /no column "question1"/,
    );
    await refused(prepare(path.join(folder, "none.tsv")), "FILE_NOT_FOUND", /none\.tsv/);
    const file = await raw(HEADER + rows(50));
    await refused(
      prepare(file, { outputDir: file }),
      "OUTPUT_UNWRITABLE",
      /a file of that name is in the way/,
    );
    const outputDir = path.join(folder, "link");
    await symlink(path.join(folder, "nowhere"), outputDir);
    await refused(prepare(file, { outputDir }), "OUTPUT_UNWRITABLE", /link: .*is in the way/);
  });

  test("stopped", async () => {
    const stop = new AbortController();
    const run = prepare(await raw(HEADER + rows(20_000)), {
      signal: stop.signal,
      onProgress: () => stop.abort(),
    });
    await refused(run, "ABORTED", /nothing was written/);
    expect(await readdir(output)).toEqual([]);
  });

  test.each([
    [{ minChars: -1 }, /min_chars/],
    [{ minChars: 1.5 }, /min_chars/],
    [{ maxChars: 61 }, /max_chars/],
    [{ maxChars: Number.NaN }, /max_chars/],
    [{ trainFraction: 0 }, /train_fraction/],
    [{ trainFraction: 1 }, /train_fraction/],
    [{ seed: -1 }, /seed/],
    [{ seed: 2 ** 32 }, /seed/],
    [{ seed: Number.NaN }, /seed/],
  ])("%j", async (options, message) => {
    await refused(prepare(await raw(HEADER + rows(50)), options), "USAGE", message);
  });
});

describe("the command", () => {
  async function command(...args: string[]): Promise<string> {
    const printed: string[] = [];
    const stdout = vi
      .spyOn(process.stdout, "write")
      .mockImplementation((text) => printed.push(String(text)) > 0);
    const stderr = vi.spyOn(process.stderr, "write").mockImplementation(() => true);
    try {
      await yargs(["prepare", ...args])
        .command(prepareCommand)
        .strict()
        .exitProcess(false)
        .fail((message, error) => {
          throw error ?? new Error(message);
        })
        .parseAsync();
    } finally {
      stdout.mockRestore();
      stderr.mockRestore();
    }
    return printed.join("");
  }

  test("takes flags in both spellings, and says what it wrote and what to do next", async () => {
    const input = path.join(FIXTURE, "raw.tsv");
    const snake = await command(
      `--input=${input}`,
      `--output_dir=${output}`,
      "--min_chars=60",
      "--train_fraction",
      "0.8",
    );
    expect(await readFile(path.join(output, "train.csv"))).toEqual(
      await readFile(path.join(FIXTURE, "train.csv")),
    );
    const lines = (await readFile(path.join(FIXTURE, "test.csv"), "utf8")).split("\n");
    expect(snake).toContain("250 rows read");
    expect(snake).toMatch(/│ \S*\/out\/train\.csv +│ +\d+ │ +\d+ │ +\d+\.\d % │/);
    expect(lines.length).toBeGreaterThan(10);
    expect(snake).toContain(`--dataset_name=${output}/train.csv`);
    expect(snake).toContain(`--eval_dataset_name=${output}/test.csv`);

    const other = path.join(folder, "it's other");
    const kebab = ["--output-dir", other, "--min-chars", "60", "--max-chars=268", "--train-fraction=0.8"];
    expect(await command("--input", input, ...kebab)).toContain(
      `--dataset_name='${folder}/it'\\''s other/train.csv'`,
    );
    expect(await readFile(path.join(other, "test.csv"))).toEqual(
      await readFile(path.join(output, "test.csv")),
    );
  });

  test("--force, and errors that come through", async () => {
    const args = [`--input=${path.join(FIXTURE, "raw.tsv")}`, `--output_dir=${output}`];
    await command(...args);
    await expect(command(...args)).rejects.toMatchObject({ code: "OUTPUT_EXISTS" });
    await command(...args, "--force");
    await expect(command(...args, "--force", "--seed=x")).rejects.toMatchObject({ code: "USAGE" });
    await expect(command("--input=x")).rejects.toThrow(/output_dir/);
    await expect(command(...args, "--sed=1")).rejects.toThrow(/sed/);
  });
});

test("code points", () => {
  expect(
    ["", "a", "é", "e\u0301", "😀", "a😀b", "\ud83d", "\ude00\ud83d", "\ud83d\ud83d\ude00"].map(codePoints),
  ).toEqual([0, 1, 1, 2, 1, 3, 1, 2, 2]);
});

test("a line of CSV", () => {
  expect(csvLine(["1", "a b", 'say "hi"', "x,y", "p\nq", "r\rs", "", " t "])).toBe(
    '1,a b,"say ""hi""","x,y","p\nq","r\rs",, t \n',
  );
});
