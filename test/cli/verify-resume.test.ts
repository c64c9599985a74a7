import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { outcome, runCli, startCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const args = (...more: string[]) => [
  "verify-resume",
  "--model_name_or_path=model",
  "--dataset_name=train.csv",
  "--per_device_train_batch_size=4",
  "--num_threads=1",
  ...more,
];
const run = (...more: string[]) =>
  runCli(args(...more), { cwd: temporary.path(), env: { TMPDIR: temporary.path("tmp") } });

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 80);
  mkdirSync(temporary.path("tmp"));
});

describe("verify-resume", () => {
  it("finds the same bytes, says so and leaves nothing", async () => {
    const before = readdirSync(temporary.path());
    const { code, stdout, stderr } = await runCli(args("--kills=2", "--max_train_steps=400"), {
      cwd: temporary.path(),
      env: { TMPDIR: temporary.path() },
    });
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/The same bytes: adapter_model\.safetensors of both has SHA-256 \w{64}/);
    // A kill that comes before the first checkpoint begins anew.
    expect(stdout).toMatch(/kill 2 +│ (step \d+|the beginning) +│ step \d+, killed/);
    expect(readdirSync(temporary.path())).toEqual(before);
  });

  it("finds the same bytes where texts are anchored and kept", async () => {
    const { code, stdout, stderr } = await run(
      "--kills=2",
      "--max_train_steps=200",
      "--anchor=question2",
      "--keep_weight=2",
      "--eval_fraction=0.2",
    );
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("The same bytes");
  });

  it("keeps both runs where they differ, and ends with 1", async () => {
    const child = startCli(args("--kills=1", "--max_train_steps=40", "--output_dir=both", "--json"), {
      cwd: temporary.path(),
    });
    const ended = outcome(child);
    child.stderr.on("data", (text: string) => {
      if (!text.includes("Kill 1")) return;
      // The first run is complete: another last byte of its weights stands for a resume that went wrong.
      const file = temporary.path("both", "whole", "adapter_model.safetensors");
      const bytes = readFileSync(file);
      bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
      writeFileSync(file, bytes);
    });
    const { code, stdout, stderr } = await ended;
    expect(code, stderr).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ same: false, steps: 40, kills: [{ resumed_from: null }] });
    expect(readdirSync(temporary.path("both")).sort()).toEqual(["killed", "whole"]);
  });

  it("tells what its runs fail with, and refuses flags that have no meaning", async () => {
    for (const [more, code, message] of [
      [["--dataset_name=none.csv"], 1, "there is no file none.csv"],
      [["--kills=0"], 2, "--kills=0: expected a whole number of at least 1"],
      [["--kills=5", "--max_train_steps=5"], 2, "--kills=5 needs more than 5 steps"],
      [["--resume_from_checkpoint=latest"], 2, "--resume_from_checkpoint has no meaning"],
      [["--learning_rate=x"], 2, "--learning_rate=x: expected a number"],
    ] as const) {
      const { code: found, stderr, stdout } = await run(...more);
      expect(found, stderr).toBe(code);
      expect(stderr).toContain(`error: ${message}`);
      expect(stdout).toBe("");
    }
  });
});
