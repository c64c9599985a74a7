import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { UsageError } from "../../bench/arguments.mjs";
import { readPairs, textsFile, trainingFiles } from "../../bench/data.mjs";
import { END, replaceGenerated, START } from "../../bench/document.mjs";
import { multipliesBfloat16, physicalCores } from "../../bench/machine.mjs";
import { parseBenchOptions } from "../../bench/options.mjs";
import { runProgram } from "../../bench/process.mjs";
import { shown } from "../../bench/report.mjs";
import { bestSetting } from "../../bench/search.mjs";
import { leastCosine, median, pairedRatio, summary } from "../../bench/statistics.mjs";
import { figure, markdownTable, spread } from "../../bench/table.mjs";
import { ARTICLE, compared, steadyRate } from "../../bench/train.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "peft-train-bench-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("statistics", () => {
  test("median of odd and even counts, and of none", () => {
    expect(median([3, 1, 10])).toBe(3);
    expect(median([4, 1, 10, 2])).toBe(3);
    expect(() => median([])).toThrow("no values");
  });

  test("a ratio is taken round by round, so that a machine that slows down favours nobody", () => {
    expect(pairedRatio([10, 5, 2], [5, 2.5, 1])).toEqual({ median: 2, min: 2, max: 2, values: [2, 2, 2] });
    expect(() => pairedRatio([1], [1, 2])).toThrow("1 values against 2");
  });

  test("the least cosine, with NaN as the least", () => {
    expect(leastCosine([1, 0, 3, 4], [2, 0, 4, 3], 2)).toBeCloseTo(24 / 25, 12);
    expect(leastCosine([Number.NaN, 0, 1, 0], [1, 0, 1, 0], 2)).toBeNaN();
    expect(() => leastCosine([1, 2], [1, 2, 3, 4], 2)).toThrow("2 and 4 numbers");
  });
});

describe("tables", () => {
  test("figures with three digits that mean something", () => {
    expect([0, 1.234, 12.34, 123.4, 1234567.8, undefined, Number.NaN].map(figure)).toEqual([
      "0.00",
      "1.23",
      "12.3",
      "123",
      "1,234,568",
      "",
      "",
    ]);
  });

  test("the spread is left out of what was measured once", () => {
    expect(spread(summary([2]), 1000)).toBe("2,000");
    expect(spread(summary([2, 1, 3]))).toBe("2.00 (1.00 to 3.00)");
  });

  test("Markdown, and rows that do not fit their head", () => {
    expect(markdownTable(["", "a"], [["x|y", 1]])).toBe("|  | a |\n|---|---:|\n| x\\|y | 1 |");
    expect(() => markdownTable(["", "a"], [["x"]])).toThrow("1 cells under 2 headings");
  });

  test("a column without figures is left out", () => {
    const rows = [
      ["x", "", 2],
      ["y", undefined, ""],
    ];
    expect(markdownTable(["", "a", "b"], rows)).toBe("|  | b |\n|---|---:|\n| x | 2 |\n| y |  |");
  });
});

describe("the document", () => {
  test("only what is between the markers changes, and a second time nothing does", () => {
    const text = `# Top\n\n${START}\nold\n${END}\n\n## Rest\n`;
    const once = replaceGenerated(text, "new\n");
    expect(once).toBe(`# Top\n\n${START}\n\nnew\n\n${END}\n\n## Rest\n`);
    expect(replaceGenerated(once, "new")).toBe(once);
  });

  test.each([
    ["no markers", "# Top\n"],
    ["the end alone", `${END}\n`],
    ["the wrong order", `${END}\n${START}\n`],
    ["one twice", `${START}\n${START}\n${END}\n`],
  ])("%s", (_, text) => {
    expect(() => replaceGenerated(text, "new")).toThrow("expected the line");
  });

  test("docs/benchmarks.md has them", () => {
    replaceGenerated(readFileSync(join(root, "docs/benchmarks.md"), "utf8"), "new");
  });

  test("no path of the machine is shown", () => {
    expect(shown(join(root, "data/pairs/train.csv"), root)).toBe("data/pairs/train.csv");
    expect(shown("/somewhere/else/train.csv", root)).toBe("train.csv");
  });
});

describe("training rows", () => {
  const step = (at: number, pairs = 10) => ({ event: "step", pairs, at });

  test("the rate is that of the steps after the warm-up, by the clock", () => {
    const events = [{ event: "started", at: 0 }, step(5), step(6), step(8), step(10, 5)];
    expect(steadyRate(events, 1)).toBe(25 / 5);
    expect(steadyRate(events, 2)).toBe(15 / 4);
    expect(() => steadyRate(events, 4)).toThrow("4 steps, of which 4");
  });

  test("every row stands beside the article's script and the fastest Python, never beside our own", () => {
    const row = (name: string, side: string, ...rates: number[]) => ({
      name,
      side,
      flags: [],
      runs: rates.map((pairsPerSecond) => ({ pairsPerSecond, peakBytes: 1, firstLoss: 0.5 })),
    });
    const { results, best } = compared([
      row(ARTICLE, "python", 10, 5),
      row("sorted", "python", 20, 10),
      { ...row("sorted, bfloat16", "python", 40, 20), neverChosen: true },
      row("peft-train", "ours", 60, 30),
    ]);
    expect(best).toBe(1);
    expect(results.map((r) => r.againstArticle.median)).toEqual([1, 2, 4, 6]);
    expect(results.map((r) => r.againstBestPython.median)).toEqual([0.5, 1, 2, 3]);
  });

  test("the search goes on from the best, passes over what fails and never chooses what is not float32", async () => {
    const rates: Record<string, number> = { a: 1, b: 3, "b c": 2, "b d": 4, "b d f": 9 };
    const plan = [
      [
        { name: "a", flags: ["a"] },
        { name: "b", flags: ["b"] },
      ],
      [
        { name: "c", flags: ["c"] },
        { name: "d", flags: ["d"], env: { X: "1" } },
      ],
      [{ name: "e", flags: ["e"] }],
      [{ name: "f", flags: ["f"], neverChosen: true }],
    ];
    const rate = async (flags: string[]): Promise<number> => {
      const found = rates[flags.join(" ")];
      if (found === undefined) throw new Error("does not run");
      return found;
    };
    const { best, tried } = await bestSetting(rate, () => {}, plan);
    expect(best).toMatchObject({ flags: ["b", "d"], env: { X: "1" }, pairsPerSecond: 4 });
    expect(tried.map(({ pairsPerSecond, error }) => pairsPerSecond ?? error)).toEqual([
      1,
      3,
      2,
      4,
      "does not run",
      9,
    ]);
    await expect(
      bestSetting(
        async () => Promise.reject(new Error("no")),
        () => {},
        plan,
      ),
    ).rejects.toThrow("--search");
  });
});

describe("data", () => {
  const csv = (count: number): string => {
    const file = join(folder, "pairs.csv");
    const rows = Array.from({ length: count }, (_, i) => `${i},"first, ${i}",second ${i},${i % 2}`);
    writeFileSync(file, ["id,question1,question2,is_duplicate", ...rows, ""].join("\n"));
    return file;
  };

  test("both sides get the same pairs, Python's in the order in which ours are drawn", () => {
    const files = trainingFiles(csv(9), 6, 42, folder);
    const ours = readPairs(files.ours, 6);
    const python = readPairs(files.python, 6);
    expect(ours.map((row) => row.question1)).toEqual([0, 1, 2, 3, 4, 5].map((i) => `first, ${i}`));
    expect(python).not.toEqual(ours);
    expect(new Set(python.map((row) => row.question2))).toEqual(new Set(ours.map((row) => row.question2)));
  });

  test("both questions of a pair are texts", () => {
    expect(JSON.parse(readFileSync(textsFile(csv(2), 3, folder), "utf8"))).toEqual([
      "query: first, 0",
      "query: second 0",
      "query: first, 1",
    ]);
  });

  test("too few pairs and missing columns are told with the file", () => {
    expect(() => readPairs(csv(2), 3)).toThrow(/pairs\.csv: expected at least 3 pairs, found 2/);
    const file = join(folder, "other.csv");
    writeFileSync(file, "a,b\n1,2\n");
    expect(() => readPairs(file, 1)).toThrow(/other\.csv: no column question1; found a, b/);
  });
});

describe("options", () => {
  const parse = (...argv: string[]) => parseBenchOptions(argv, root);

  test("rows of one's own", () => {
    const { ours, ours_encode } = parse(
      "--ours=int8=--compute=int8 --seed 1",
      '--ours_encode=fp16={"dtype":"float16"}',
    );
    expect(ours).toEqual([{ name: "int8", value: ["--compute=int8", "--seed", "1"] }]);
    expect(ours_encode).toEqual([{ name: "fp16", value: { dtype: "float16" } }]);
  });

  test("quick and full measure different amounts, and both can be told", () => {
    expect(parse().rounds).toBe(3);
    expect(parse("--quick")).toMatchObject({ rounds: 1, texts: 300 });
    expect(parse("--quick", "--texts=9").texts).toBe(9);
    expect(parse("--scale").only).toEqual(["train", "encode", "start", "scale"]);
    expect(parse("--only=start,encode,start").only).toEqual(["start", "encode"]);
    expect(parse("--only=start", "--json=figures.json").json).toBe("figures.json");
  });

  test.each([
    [["--rounds=0"], "--rounds: expected a whole number of at least 1"],
    [["--steps=1.5"], "--steps"],
    [["--batch="], "--batch"],
    [["--max_length=2"], "--max_length"],
    [["--scale_pairs=10,x"], "--scale_pairs"],
    [["--only=train,speed"], 'found "speed"'],
    [["--json=none/figures.json"], "--json: cannot write none/figures.json: there is no folder"],
    [["--json=bench"], "--json: cannot write bench: it is a folder"],
    [["--json=package.json/figures.json"], "package.json is no folder"],
    [["--train=none.csv"], "--train: no file none.csv"],
    [["--model=test"], "--model: no config.json"],
    [["--ours=name"], "--ours: expected NAME="],
    [["--ours_encode=a=[1]"], "--ours_encode"],
    [["--quick", "--write"], "--quick"],
    [["--unknown"], "--unknown"],
  ])("%j is refused", (argv, message) => {
    expect(() => parse(...argv)).toThrow(UsageError);
    expect(() => parse(...argv)).toThrow(message);
  });
});

it("counts cores once, whatever threads they have", () => {
  const block = (socket: number, core: number) =>
    `processor: 0\nphysical id\t: ${socket}\ncore id\t\t: ${core}`;
  expect(physicalCores([block(0, 0), block(0, 0), block(0, 1), block(1, 0)].join("\n\n"))).toBe(3);
  expect(physicalCores("")).toBeUndefined();
});

test("a processor that says what it can, and not bfloat16, does not multiply it", () => {
  const block = (flags: string) => `processor\t: 0\nflags\t\t: ${flags}\n`;
  expect(multipliesBfloat16(block("fpu avx2 avx512f"))).toBe(false);
  expect(multipliesBfloat16(block("fpu avx512_bf16 avx2"))).toBe(true);
  expect(multipliesBfloat16(block("amx_bf16"))).toBe(true);
  expect(multipliesBfloat16("processor\t: 0\n")).toBe(true);
});

describe("programs", () => {
  const node = (source: string, options = {}) => runProgram(process.execPath, ["-e", source], options);

  test("events come with the time they took; other lines are passed over", async () => {
    const { events } = await node(`console.log("hello"); console.log('{"event":"a","x":1}')`);
    expect(events).toEqual([{ event: "a", x: 1, at: expect.any(Number) }]);
  });

  test("one that fails is told with what it said last", async () => {
    await expect(node(`console.error("no such thing"); process.exit(3)`)).rejects.toThrow(
      /ended with 3\nno such thing/,
    );
    await expect(node("setTimeout(() => {}, 60_000)", { timeoutSeconds: 0.2 })).rejects.toThrow("SIGKILL");
    await expect(runProgram("/no/such/program", [])).rejects.toThrow("ENOENT");
  });
});
