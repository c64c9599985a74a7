import { existsSync, readdirSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import { openAdapterFolder } from "../../lib/adapter/folder.js";
import { openModelFolder } from "../../lib/model/folder.js";
import { outcome, runCli, startCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { mulberry32, writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const ROUNDS = 6;

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 8);
});

const args = (...more: string[]) => [
  "--model_name_or_path=model",
  "--dataset_name=train.csv",
  "--output_dir=out",
  "--per_device_train_batch_size=4",
  "--overwrite_output_dir",
  "--json",
  ...more,
];

/** Every adapter in the output folder, and in the folders of its checkpoints. */
function adapters(): string[] {
  const out = temporary.path("out");
  if (!existsSync(out)) return [];
  const checkpoints = readdirSync(out).filter((name) => name.startsWith("step_"));
  return [out, ...checkpoints.map((name) => temporary.path("out", name))];
}

it("killed outright at any moment, a run leaves whole adapters only, and the next run starts all the same", async () => {
  const random = mulberry32(7);
  const model = await openModelFolder(temporary.path("model"));
  let found = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const child = startCli(args("--num_train_epochs=5000", "--checkpointing_steps=3"), {
      cwd: temporary.path(),
    });
    const ended = outcome(child);
    // A save every second or third step of a few milliseconds: most moments are within one.
    await new Promise<void>((resolve) => {
      child.stdout.on("data", (text: string) => {
        if (text.includes('"saved"')) resolve();
      });
      child.on("close", () => resolve());
    });
    await new Promise((resolve) => setTimeout(resolve, 300 * random()));
    child.kill("SIGKILL");
    const { signal, stderr } = await ended;
    expect(signal, stderr).toBe("SIGKILL");
    for (const folder of adapters()) {
      const names = readdirSync(folder);
      // Killed before its first save, or in the middle of one: no adapter to anybody.
      if (folder.endsWith("/out") && !names.includes("adapter_config.json")) continue;
      const adapter = await openAdapterFolder(folder, model);
      expect(adapter.record?.step).toBeGreaterThan(0);
      found++;
    }
  }
  expect(found).toBeGreaterThan(ROUNDS);
  const last = await runCli(args("--num_train_epochs=1", "--checkpointing_steps=epoch"), {
    cwd: temporary.path(),
  });
  expect(last.code, last.stderr).toBe(0);
  expect(readdirSync(temporary.path("out")).sort()).toEqual([
    "adapter_config.json",
    "adapter_model.safetensors",
    "epoch_0",
    "peft_train.json",
    "report.html",
    "tokenizer.json",
    "tokenizer_config.json",
    "train_config.json",
    "train_log.jsonl",
  ]);
  expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
});
