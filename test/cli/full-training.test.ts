import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import { readTensors } from "../parity/safetensors.js";
import { outcome, runCli, startCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { mulberry32 } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const DATA = fileURLToPath(new URL("../../data", import.meta.url));
const STEPS = 24;

const args = (output: string, ...more: string[]) => [
  `--model_name_or_path=${DATA}/encoder`,
  `--dataset_name=${DATA}/pairs/train.csv`,
  "--no-use_peft",
  "--learning_rate=1e-4",
  "--eval_fraction=0.05",
  "--per_device_train_batch_size=16",
  "--max_length=24",
  "--num_threads=1",
  `--max_train_steps=${STEPS}`,
  `--output_dir=${output}`,
  ...more,
];

const at = (...names: string[]) => temporary.path(...names);
const weights = (name: string) => readFileSync(at(name, "model.safetensors"));

beforeAll(async () => {
  const whole = await runCli(args("whole", "--checkpointing_steps=1", "--save_total_limit=2"), { cwd: at() });
  expect(whole.code, whole.stderr).toBe(0);
  expect(whole.stdout).toContain("all parameters train");
  expect(whole.stdout).toContain("model.safetensors");
  expect(whole.stdout).toContain("npx peft-train eval --model_name_or_path=whole --dataset_name=");
});

describe("--no-use_peft", () => {
  it("trains every tensor but the pooler's, and keeps the names of the base", () => {
    const before = readTensors(`${DATA}/encoder/model.safetensors`).floats;
    const after = readTensors(at("whole", "model.safetensors")).floats;
    expect(Object.keys(after).sort()).toEqual(Object.keys(before).sort());
    const still = Object.keys(before).filter((key) =>
      Buffer.from(bytes(before, key)).equals(bytes(after, key)),
    );
    expect(still.every((key) => key.startsWith("pooler."))).toBe(true);
  });

  it("ends, killed and resumed, in the same bytes", { timeout: 600_000 }, async () => {
    const random = mulberry32(7);
    const command = args(
      "out",
      "--checkpointing_steps=1",
      "--save_total_limit=2",
      "--resume_from_checkpoint=latest",
      "--json",
    );
    for (let kills = 0; kills < 3; kills++) {
      const child = startCli(command, { cwd: at() });
      const ended = outcome(child);
      await new Promise<void>((resolve) => {
        child.stdout.on("data", (text: string) => {
          if (text.includes('"step"')) resolve();
        });
        child.on("close", () => resolve());
      });
      await new Promise((resolve) => setTimeout(resolve, 300 * random()));
      child.kill("SIGKILL");
      await ended;
    }
    const last = await runCli(command, { cwd: at() });
    expect(last.code, last.stderr).toBe(0);
    expect(weights("out").equals(weights("whole"))).toBe(true);
  });

  it("is a model to eval and encode, with the prefix that it was trained with", async () => {
    const file = `--dataset_name=${DATA}/pairs/test.csv`;
    const found = await runCli(["eval", `--model_name_or_path=${at("whole")}`, file, "--json"]);
    expect(found.code, found.stderr).toBe(0);
    const before = await runCli(["eval", `--model_name_or_path=${DATA}/encoder`, file, "--json"]);
    const [after, base] = [found, before].map(({ stdout }) => JSON.parse(stdout).roc_auc);
    expect(after).toBeGreaterThan(base);
    await using encoder = await Encoder.load(at("whole"));
    expect(encoder.defaults).toEqual({ prefix: "query: ", maxLength: 24 });
    const [trained] = await encoder.encode(["how do I swim"]);
    const [asBefore] = await encoder.encode(["how do I swim"], { prefix: "query: ", maxLength: 24 });
    expect(trained).toEqual(asBefore);
    const adapter = await runCli([
      "eval",
      `--model_name_or_path=${DATA}/encoder`,
      `--adapter=${at("whole")}`,
      file,
    ]);
    expect(adapter.stderr).toMatch(/is a whole model, trained with --no-use_peft/);
  });

  it("is the base of an adapter", async () => {
    const flags = [
      "--max_train_steps=2",
      "--per_device_train_batch_size=16",
      "--max_length=24",
      "--output_dir=adapter",
    ];
    const model = `--model_name_or_path=${at("whole")}`;
    const trained = await runCli([model, `--dataset_name=${DATA}/pairs/train.csv`, ...flags], { cwd: at() });
    expect(trained.code, trained.stderr).toBe(0);
    await using encoder = await Encoder.load(at("whole"), { adapter: at("adapter") });
    expect(await encoder.encode(["x"])).toHaveLength(1);
  });

  for (const precision of ["bf16", "fp16"]) {
    it(`trains with --mixed_precision=${precision}`, async () => {
      const more = [
        `--mixed_precision=${precision}`,
        "--activation_checkpointing",
        "--weight_decay=0.01",
        "--json",
      ];
      const run = await runCli(args(`mixed-${precision}`, ...more), { cwd: at() });
      expect(run.code, run.stderr).toBe(0);
      const events = run.stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
      const [first, last] = events.filter(({ event }) => event === "evaluated");
      expect(last.metrics.roc_auc).toBeGreaterThan(first.metrics.roc_auc);
      const { peak, plan } = events.find(({ event }) => event === "memory");
      expect(peak).toBeGreaterThan(plan.adapter + plan.optimizer);
    });
  }

  it("trains with anchored and kept texts and over a whole batch, and reports drift", async () => {
    const more = ["--loss=multiple_negatives_ranking", "--anchor=question2", "--keep_weight=0.5", "--json"];
    const run = await runCli(args("anchored", ...more), { cwd: at() });
    expect(run.code, run.stderr).toBe(0);
    const evaluated = run.stdout.split("\n").filter((line) => line.includes('"evaluated"'));
    const cosines = evaluated.map((line) => JSON.parse(line).metrics.base_cosine);
    expect(cosines[0]).toBeCloseTo(1, 5);
    expect(cosines.at(-1)).toBeLessThan(1);
  });

  it("is proved by verify-resume", { timeout: 600_000 }, async () => {
    const [model, data] = args("unused");
    const flags = ["--no-use_peft", "--max_train_steps=12", "--kills=1", "--per_device_train_batch_size=8"];
    const run = await runCli(["verify-resume", model as string, data as string, ...flags], { cwd: at() });
    expect(run.stdout).toMatch(/The same bytes: model\.safetensors of both/);
    expect(run.code, run.stderr).toBe(0);
  });
});

function bytes(tensors: Record<string, Float32Array>, key: string): Uint8Array {
  const values = tensors[key] as Float32Array;
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
