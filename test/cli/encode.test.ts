import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { parquetReadObjects } from "hyparquet";
import { beforeAll, describe, expect, it } from "vitest";
import { outcome, runCli, startCli } from "../support/cli.js";
import { readNpy } from "../support/npy.js";
import { skips } from "../support/skips.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const run = (...args: string[]) =>
  runCli(["encode", "--model_name_or_path=model", ...args], { cwd: temporary.path() });
const TEXTS = 40_000;

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  const letter = (i: number) => String.fromCharCode(97 + (i % 26));
  const texts = Array.from({ length: TEXTS }, (_, i) => `${letter(i)} ${letter(i >> 3)} ${letter(i >> 7)}`);
  writeFileSync(temporary.path("texts.txt"), `${texts.join("\n")}\n`);
  writeFileSync(temporary.path("few.txt"), "a\nb c\n");
});

describe.each(["npy", "jsonl", "parquet"])("vectors in .%s", (format) => {
  it("of a run that was killed and resumed are the same bytes as of one that was not", async () => {
    const whole = await run("texts.txt", `--out=whole.${format}`, "--quiet");
    expect(whole, whole.stderr).toMatchObject({ code: 0, stdout: "" });
    const args = ["encode", "texts.txt", "--model_name_or_path=model", `--out=v.${format}`];
    for (let kill = 0; kill < 2; kill++) {
      const child = startCli([...args, "--resume"], { cwd: temporary.path() });
      const ended = outcome(child);
      const checkpoint = temporary.path(`v.${format}.partial.json`);
      const rows = () => (existsSync(checkpoint) ? JSON.parse(readFileSync(checkpoint, "utf8")).rows : 0);
      const before = rows();
      while (rows() === before && child.exitCode === null)
        await new Promise((resolve) => setTimeout(resolve, 2));
      child.kill("SIGKILL");
      await ended;
    }
    expect(existsSync(temporary.path(`v.${format}`))).toBe(false);
    const refused = await runCli(args, { cwd: temporary.path() });
    expect(refused).toMatchObject({ code: 1 });
    expect(refused.stderr).toMatch(
      /v\.\w+\.partial holds \d+ rows of an earlier run.*\nhint: Go on with --resume/,
    );
    const resumed = await run("texts.txt", `--out=v.${format}`, "--resume", "--json");
    expect(resumed.code, resumed.stderr).toBe(0);
    const { rows, resumed_rows } = JSON.parse(resumed.stdout);
    expect([rows, resumed_rows > 0]).toEqual([TEXTS, true]);
    const bytes = readFileSync(temporary.path(`v.${format}`));
    expect(bytes.equals(readFileSync(temporary.path(`whole.${format}`)))).toBe(true);
    expect(readdirSync(temporary.path()).filter((name) => name.includes("partial"))).toEqual([]);
  }, 120_000);
});

describe("a file of vectors", () => {
  it("holds the same numbers in every format", async () => {
    for (const format of ["npy", "jsonl", "parquet"]) {
      expect(await run("few.txt", `--out=few.${format}`, "--quiet")).toMatchObject({ code: 0 });
    }
    const { rows } = readNpy(temporary.path("few.npy"));
    const lines = readFileSync(temporary.path("few.jsonl"), "utf8").trim().split("\n");
    expect(lines.map((line) => Float32Array.from(JSON.parse(line)))).toEqual(
      rows.map((row) => Float32Array.from(row)),
    );
    const bytes = readFileSync(temporary.path("few.parquet"));
    const file = {
      byteLength: bytes.length,
      slice: (from: number, to?: number) => new Uint8Array(bytes.subarray(from, to)).buffer,
    };
    const objects = await parquetReadObjects({ file });
    expect(objects.map(({ embedding }) => Float32Array.from(embedding))).toEqual(
      rows.map((row) => Float32Array.from(row)),
    );
  });

  it("in Parquet is read by pyarrow, where there is one", async (context) => {
    const script = `import pyarrow.parquet as p, sys; t = p.read_table(sys.argv[1]); print(t.schema.field(0).type, t.num_rows, t.column_names)`;
    const python = process.env.PEFT_TRAIN_INTEROP_PYTHON ?? "python3";
    const output = await promisify(execFile)(python, ["-c", script, temporary.path("few.parquet")]).catch(
      () => undefined,
    );
    if (skips(output === undefined, "no Python with pyarrow here: PEFT_TRAIN_INTEROP_PYTHON names one"))
      return context.skip();
    expect(output?.stdout.trim()).toBe("list<element: float not null> 2 ['embedding']");
  });
});

describe("--resume", () => {
  const begin = async (out: string): Promise<void> => {
    const child = startCli(["encode", "texts.txt", "--model_name_or_path=model", `--out=${out}`], {
      cwd: temporary.path(),
    });
    const ended = outcome(child);
    while (!existsSync(temporary.path(`${out}.partial.json`)) && child.exitCode === null) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.kill("SIGINT");
    const { code, stderr } = await ended;
    expect(code, stderr).toBe(130);
    expect(stderr).toMatch(/is not complete\nhint: \d+,\d+ vectors are kept: the same command with --resume/);
  };

  it("refuses other options and other texts, by name, and keeps what is there", async () => {
    await begin("r.npy");
    const kept = readFileSync(temporary.path("r.npy.partial.json"), "utf8");
    writeFileSync(temporary.path("other.txt"), "x\n".repeat(TEXTS));
    for (const [args, message] of [
      [["texts.txt", "--prefix=q: "], /was begun with prefix "", now it is "q: "/],
      [["texts.txt", "--no-normalize"], /was begun with normalize true, now it is false/],
      [["other.txt"], /holds the vectors of \d+ texts, which are not the first of this input/],
      [["few.txt"], /which are not the first of this input/],
    ] as const) {
      const { code, stderr } = await run(...args, "--out=r.npy", "--resume");
      expect(code).toBe(1);
      expect(stderr).toMatch(message);
      expect(readFileSync(temporary.path("r.npy.partial.json"), "utf8")).toBe(kept);
    }
    writeFileSync(temporary.path("r.npy.partial.json"), "{");
    const { stderr } = await run("texts.txt", "--out=r.npy", "--resume");
    expect(stderr).toMatch(/r\.npy\.partial\.json is damaged/);
    rmSync(temporary.path("r.npy.partial.json"));
  }, 120_000);

  it("begins where there is nothing to go on from", async () => {
    const { code, stdout } = await run("few.txt", "--out=n.npy", "--resume", "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ rows: 2, output: "n.npy" });
  });
});

it("two inputs, and an input without texts, are refused", async () => {
  expect((await run("few.txt", "--input=texts.txt", "--out=x.npy")).stderr).toContain("two inputs");
  writeFileSync(temporary.path("none.txt"), "");
  const { code, stderr } = await run("none.txt", "--out=x.npy");
  expect([code, stderr]).toEqual([1, expect.stringContaining("none.txt holds no texts")]);
  expect(readdirSync(temporary.path()).filter((name) => name.startsWith("x.npy"))).toEqual([]);
});
