import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const runHere = (args: string[]) => runCli(args, { cwd: temporary.path() });
const bytes = (folder: string) => readFileSync(temporary.path(folder, "adapter_model.safetensors"), "hex");

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 60);
  writeFileSync(
    temporary.path("run.yaml"),
    "model_name_or_path: model\ndataset_name: train.csv\noutput_dir: out\nmax_length: 40\n" +
      "learning_rate: 5e-3\nnum_train_epochs: 1\nlora_target_modules: [query, value]\nseed: 1\n",
  );
});

it("a run by a file saves its whole configuration, which repeats it", async () => {
  const first = await runHere(["--config=run.yaml", "--seed=3"]);
  expect(first.code, first.stderr).toBe(0);
  const saved = JSON.parse(readFileSync(temporary.path("out", "train_config.json"), "utf8"));
  expect(saved).toMatchObject({
    seed: 3,
    max_length: 40,
    lora_r: 8,
    lora_target_modules: ["query", "value"],
  });
  expect(saved).not.toHaveProperty("overwrite_output_dir");

  const taken = await runHere(["--config=out/train_config.json"]);
  expect(taken.stderr).toMatch(/^error: --output_dir=out holds an earlier run$/m);
  const again = await runHere(["train", "--config", "out/train_config.json", "--output_dir=again"]);
  expect(again.code, again.stderr).toBe(0);
  expect(bytes("again")).toBe(bytes("out"));
  const other = await runHere(["--config=run.yaml", "--output_dir=other"]);
  expect(other.code, other.stderr).toBe(0);
  expect(bytes("other")).not.toBe(bytes("out"));
});

it("a wrong value is told by file and line, one of a flag by its flag", async () => {
  writeFileSync(
    temporary.path("bad.yaml"),
    "model_name_or_path: model\ndataset_name: train.csv\noutput_dir: never\nlearning_rate: fast\n",
  );
  const file = await runHere(["--config=bad.yaml"]);
  expect(file).toMatchObject({ code: 2, stdout: "" });
  expect(file.stderr).toMatch(/^error: bad\.yaml:4: learning_rate=fast: expected a number above 0/);
  const flag = await runHere(["--config=bad.yaml", "--learning_rate=2"]);
  expect(flag.stderr).toMatch(/^error: --learning_rate=2: expected/);
  const model = await runHere(["--config=model/config.json"]);
  expect(model.stderr).toMatch(
    /^error: model\/config\.json is the configuration of a model, not of a training run$/m,
  );
  expect(existsSync(temporary.path("never"))).toBe(false);
});
