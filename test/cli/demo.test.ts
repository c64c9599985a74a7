import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { isEarlierRun } from "../../lib/train/output/output-content.js";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();

it("the demo trains, shows what changed and says what to try next", { timeout: 600_000 }, async () => {
  const { code, stdout, stderr } = await runCli(["demo"], { cwd: temporary.path() });
  expect(code, stderr).toBe(0);
  const before = Number(/ROC AUC before training: (0\.\d+)/.exec(stdout)?.[1]);
  const after = [...stdout.matchAll(/ROC AUC after epoch \d\/\d: (0\.\d+)/g)].map((match) =>
    Number(match[1]),
  );
  // Clearly above chance, and something left to learn; data/README.md has the figures of one machine.
  expect(before).toBeGreaterThan(0.6);
  expect(after.at(-1)).toBeGreaterThan(before + 0.04);
  expect(stdout).toContain("Test pairs that moved most");
  expect(stdout.indexOf("Next:")).toBeGreaterThan(stdout.indexOf("Test pairs that moved most"));
  const folder = temporary.path("peft-train-demo");
  expect(readdirSync(folder)).toContain("adapter_model.safetensors");
  expect(await isEarlierRun(folder)).toBe(true);

  // The first command that it suggests works as it stands.
  const suggested = /npx peft-train (eval .*)/.exec(stdout)?.[1] ?? "";
  const evaluated = await runCli([...suggested.split(" "), "--json"], { cwd: temporary.path() });
  const { metrics } = JSON.parse(readFileSync(`${folder}/peft_train.json`, "utf8")).training;
  expect(JSON.parse(evaluated.stdout).roc_auc).toBeCloseTo(metrics.roc_auc, 6);
});

it("the demo does not touch a folder of somebody else's", async () => {
  mkdirSync(temporary.path("mine", "peft-train-demo"), { recursive: true });
  writeFileSync(temporary.path("mine", "peft-train-demo", "notes.txt"), "x");
  const { code, stderr } = await runCli(["demo"], { cwd: temporary.path("mine") });
  expect(code).toBe(1);
  expect(stderr).toMatch(/error: --output_dir=peft-train-demo is not empty: it holds notes\.txt/);
  expect(await isEarlierRun(temporary.path("mine", "peft-train-demo"))).toBe(false);
});
