import { readFileSync, rmSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const run = (...args: string[]) => runCli(args, { cwd: temporary.path() });
const TRAIN = [
  "--model_name_or_path=model",
  "--dataset_name=train.csv",
  "--num_train_epochs=1",
  "--eval_fraction=0.2",
];
const read = (file: string) => readFileSync(temporary.path(file), "utf8");

beforeAll(async () => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 120);
  const { code, stdout, stderr } = await run(...TRAIN, "--output_dir=out");
  expect(code, stderr).toBe(0);
  expect(stdout).toMatch(/│ report\.html +│ .*open it in a browser/);
});

describe("peft-train report", () => {
  it("writes the report of a run again, and says where", async () => {
    const html = read("out/report.html");
    rmSync(temporary.path("out", "report.html"));
    const { code, stdout } = await run("report", "out");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Wrote out\/report\.html \(\d+ KB\)\n$/);
    expect(read("out/report.html")).toBe(html);
  });

  it("writes to another place, and tells a machine", async () => {
    const { stdout } = await run("report", "out", "--out=elsewhere.html", "--json");
    expect(JSON.parse(stdout)).toEqual({
      folder: "out",
      report: "elsewhere.html",
      bytes: Buffer.byteLength(read("elsewhere.html")),
    });
    expect(read("elsewhere.html")).toBe(read("out/report.html"));
  });

  it("says what is missing", async () => {
    for (const [args, message] of [
      [[], "error: the folder of a run is required"],
      [["model"], "error: there is no file model/train_log.jsonl"],
      [["out", "--out=none/x.html"], "error: cannot write none/x.html: its folder does not exist"],
      [["out", "out2"], "error: unexpected argument out2"],
    ] as const) {
      const { code, stderr } = await run("report", ...args);
      expect(code).not.toBe(0);
      expect(stderr).toContain(message);
    }
  });
});

it("--no-report writes none, and --report is on by default in a saved configuration", async () => {
  expect(JSON.parse(read("out/train_config.json"))).toMatchObject({ report: true });
  const { code, stdout } = await run(...TRAIN, "--output_dir=bare", "--no-report");
  expect(code).toBe(0);
  expect(stdout).not.toContain("report.html");
  expect(() => read("bare/report.html")).toThrow("ENOENT");
});
