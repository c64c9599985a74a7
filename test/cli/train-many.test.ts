import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const runHere = (...args: string[]) => runCli(args, { cwd: temporary.path() });
const bytes = (folder: string) => readFileSync(temporary.path(folder, "adapter_model.safetensors"), "hex");
const write = (name: string, text: string) => writeFileSync(temporary.path(name), text);
const SHARED =
  "model_name_or_path: model\nmax_length: 30\nnum_train_epochs: 1\nlearning_rate: 5e-3\nreport: false\n";

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  for (const [i, name] of ["support", "sales", "eval"].entries())
    writePairs(temporary.path(`${name}.csv`), 40, i + 1);
  write(
    "tenants.yaml",
    `${SHARED}output_dir: out\ntenants:\n  support: { dataset_name: support.csv, eval_dataset_name: eval.csv }\n` +
      "  sales:\n    dataset_name: sales.csv\n    lora_r: 4\n    seed: 7\n",
  );
});

it("trains every tenant of the file into a folder of its own, to the bytes of a run alone", async () => {
  const together = await runHere("train-many", "--config=tenants.yaml", "--json");
  expect(together.code, together.stderr).toBe(0);
  const events = together.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(new Set(events.map(({ tenant }) => tenant))).toEqual(new Set(["support", "sales"]));
  expect(events.filter(({ event }) => event === "finished")).toHaveLength(2);
  const common = [
    "--model_name_or_path=model",
    "--max_length=30",
    "--num_train_epochs=1",
    "--learning_rate=5e-3",
    "--no-report",
  ];
  const support = await runHere(
    ...common,
    "--dataset_name=support.csv",
    "--eval_dataset_name=eval.csv",
    "--output_dir=alone-1",
  );
  const sales = await runHere(
    ...common,
    "--dataset_name=sales.csv",
    "--lora_r=4",
    "--seed=7",
    "--output_dir=alone-2",
  );
  expect([support.code, sales.code], support.stderr + sales.stderr).toEqual([0, 0]);
  expect(bytes("out/support")).toBe(bytes("alone-1"));
  expect(bytes("out/sales")).toBe(bytes("alone-2"));
});

it("shows people a line an event, and a table; flags hold for all", async () => {
  const { code, stdout, stderr } = await runHere(
    "train-many",
    "--config=tenants.yaml",
    "--output_dir=other",
    "--max_train_steps=1",
  );
  expect(code, stderr).toBe(0);
  expect(stdout).toMatch(/^support \| ROC AUC 0\.\d+ before training$/m);
  expect(stdout).toMatch(/^sales \| saved other\/sales \(step 1\)$/m);
  expect(stdout).toMatch(/Tenant +│ Steps/);
  expect(existsSync(temporary.path("other/support/adapter_model.safetensors"))).toBe(true);
});

it("refuses what cannot be run before anything is read", async () => {
  write("bad.yaml", `${SHARED}tenants:\n  a: { dataset_name: x.csv, lora_rr: 4 }\n`);
  const { code, stdout, stderr } = await runHere("train-many", "--config=bad.yaml", "--output_dir=bad");
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  expect(stderr).toMatch(/^error: bad\.yaml:7: unknown option lora_rr$/m);
});
