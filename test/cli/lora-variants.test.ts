import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { runCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const DATA = fileURLToPath(new URL("../../data", import.meta.url));
const PATIENCE_MS = 300_000;

const run = async (output: string, ...more: string[]) => {
  const outcome = await runCli([
    `--model_name_or_path=${DATA}/encoder`,
    `--dataset_name=${DATA}/pairs/train.csv`,
    "--eval_fraction=0.05",
    "--sanity_test",
    "--per_device_train_batch_size=8",
    "--max_length=24",
    "--num_threads=1",
    "--max_train_steps=4",
    "--learning_rate=1e-2",
    "--no-report",
    "--json",
    `--output_dir=${temporary.path(output)}`,
    ...more,
  ]);
  expect(outcome.code, outcome.stderr).toBe(0);
};
const config = (name: string) =>
  JSON.parse(readFileSync(temporary.path(name, "adapter_config.json"), "utf8"));
const weights = (name: string) => readFileSync(temporary.path(name, "adapter_model.safetensors"));
const evaluations = (name: string): { roc_auc: number }[] =>
  readFileSync(temporary.path(name, "train_log.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
    .filter(({ event }) => event === "evaluated")
    .map(({ metrics }) => metrics);

/** Ranks of their own, module by module. */
const EVA_CONFIG = {
  r: 8,
  init_lora_weights: true,
  target_modules: expect.arrayContaining([expect.stringMatching(/^encoder\.layer\.0\./)]),
};

describe("an adapter that is more than A and B", () => {
  for (const [name, flags, expected] of [
    ["dora", ["--use_dora", "--lora_dropout=0.1"], { use_dora: true, r: 8 }],
    ["lora-bias", ["--lora_bias", "--lora_target_modules=value"], { lora_bias: true }],
    ["pissa", ["--init_lora_weights=pissa"], { r: 16, lora_alpha: 32, init_lora_weights: true }],
    ["olora", ["--init_lora_weights=olora", "--load_in_4bit"], { r: 16, lora_alpha: 32 }],
    ["loftq", ["--init_lora_weights=loftq", "--load_in_4bit"], { r: 8, init_lora_weights: true }],
    [
      "eva",
      ["--init_lora_weights=eva", "--lora_target_modules=query,output.dense", "--use_dora"],
      EVA_CONFIG,
    ],
  ] as const) {
    it(`trains, is saved as what it is, and goes on from a checkpoint to the same bytes: ${name}`, {
      timeout: PATIENCE_MS,
    }, async () => {
      await run(name, ...flags, "--checkpointing_steps=2");
      expect(config(name)).toMatchObject(expected);
      const again = `${name}-again`;
      const checkpoint = temporary.path(name, "step_2");
      await run(again, ...flags, `--resume_from_checkpoint=${checkpoint}`);
      expect(weights(again).equals(weights(name))).toBe(true);
      const evaluated = await runCli([
        "eval",
        `--model_name_or_path=${DATA}/encoder`,
        `--adapter=${temporary.path(name)}`,
        `--dataset_name=${DATA}/pairs/test.csv`,
        "--num_threads=1",
        "--json",
        ...flags.filter((flag) => flag === "--load_in_4bit"),
      ]);
      expect(evaluated.code, evaluated.stderr).toBe(0);
    });
  }

  it("moves ranks from matrix to matrix with EVA, and keeps their sum", () => {
    const { target_modules: targets, rank_pattern: ranks, alpha_pattern: alphas, r } = config("eva");
    const sum = (targets as string[]).reduce((total, name) => total + (ranks[name] ?? r), 0);
    // Query and two output layers of each layer.
    expect(sum % (3 * r)).toBe(0);
    expect(Object.keys(ranks).length).toBeGreaterThan(0);
    for (const [name, rank] of Object.entries(ranks)) expect(alphas[name]).toBe(2 * (rank as number));
  });

  it("begins where the base model is", {
    timeout: PATIENCE_MS,
  }, async () => {
    const { length } = evaluations("dora");
    expect(length).toBeGreaterThan(1);
    const first = (name: string) => evaluations(name)[0]?.roc_auc;
    await run("plain");
    // A pair or two of 51 may change places by rounding.
    for (const name of ["dora", "lora-bias", "pissa", "eva"]) {
      expect(first(name), name).toBeCloseTo(first("plain") ?? Number.NaN, 2);
    }
  });
});
