import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { outcome, runCli, startCli } from "../support/cli.js";
import { temporaryFolder } from "../support/temporary-folder.js";

const temporary = temporaryFolder();
const DATA = fileURLToPath(new URL("../../data", import.meta.url));

const args = (output: string, ...more: string[]) => [
  `--model_name_or_path=${DATA}/encoder`,
  `--dataset_name=${DATA}/pairs/train.csv`,
  "--eval_fraction=0.05",
  "--per_device_train_batch_size=16",
  "--max_length=24",
  "--num_threads=1",
  "--learning_rate=2e-2",
  "--max_train_steps=40",
  "--eval_steps=4",
  "--load_best_model_at_end",
  `--output_dir=${output}`,
  ...more,
];
const runHere = (given: string[]) => runCli(given, { cwd: temporary.path() });
const weights = (name: string) => readFileSync(temporary.path(name, "adapter_model.safetensors"));
const recordOf = (name: string) => JSON.parse(readFileSync(temporary.path(name, "peft_train.json"), "utf8"));

describe("--load_best_model_at_end", () => {
  it("says which step is kept, and the adapter is of that step", async () => {
    const { code, stdout, stderr } = await runHere(args("best", "--early_stopping_patience=3"));
    expect(code, stderr).toBe(0);
    const [, value, step] =
      /^The adapter is the best one: roc_auc (0\.\d{4}), after step (\d+)\.$/m.exec(stdout) ?? [];
    expect(stdout).toMatch(new RegExp(`│ ${step} \\(best\\) +│ +${value} │`));
    expect(stdout).toMatch(new RegExp(`^ROC AUC after step ${step}/40: ${value} `, "m"));
    const record = recordOf("best");
    expect(record.step).toBe(Number(step));
    expect(record.training.metrics.roc_auc.toFixed(4)).toBe(value);
    // So high a learning rate forgets: the last step is not the best, and patience ends the run.
    expect(stdout).toMatch(
      /^Ended early, after step \d+: the last 3 evaluations brought no gain in roc_auc\.$/m,
    );
    expect(/after step (\d+): the last/.exec(stdout)?.[1]).toBe(String(Number(step) + 12));
  });

  it("ends in the same bytes after kill -9, wherever the best one was", { timeout: 300_000 }, async () => {
    const whole = await runHere(args("whole", "--json"));
    expect(whole.code, whole.stderr).toBe(0);
    const { best } = JSON.parse(whole.stdout.trim().split("\n").at(-1) as string);
    const command = args(
      "out",
      "--json",
      "--checkpointing_steps=6",
      "--save_total_limit=1",
      "--resume_from_checkpoint=latest",
    );
    // Before the best step, soon after it, and long after.
    const kills = [best.step - 1, best.step + 3, 34].filter((step) => step < 40).sort((a, b) => a - b);
    for (const kill of kills) {
      const child = startCli(command, { cwd: temporary.path() });
      const ended = outcome(child);
      child.stdout.on("data", (text: string) => {
        if (text.includes(`"event":"step","step":${kill},`)) child.kill("SIGKILL");
      });
      expect((await ended).signal).toBe("SIGKILL");
    }
    const last = await runHere(command);
    expect(last.code, last.stderr).toBe(0);
    const finished = JSON.parse(last.stdout.trim().split("\n").at(-1) as string);
    expect(finished).toMatchObject({ best, saved_step: best.step, stopped_early: false });
    expect(weights("out").equals(weights("whole"))).toBe(true);
    expect(recordOf("out")).toMatchObject({
      step: best.step,
      training: { metrics: recordOf("whole").training.metrics },
    });
  });
});

describe("what cannot be", () => {
  for (const [what, flags, message] of [
    ["no evaluation set", ["--eval_steps=4"], /^error: --eval_steps: there is no evaluation set$/m],
    [
      "a metric that there is none of",
      ["--eval_fraction=0.1", "--metric_for_best_model=eval_auc"],
      /^error: --metric_for_best_model=eval_auc: expected one of roc_auc, .*, with or without eval_ before it$/m,
    ],
    [
      "a threshold alone",
      ["--eval_fraction=0.1", "--early_stopping_threshold=0.1"],
      /^error: --early_stopping_threshold=0\.1 needs --early_stopping_patience$/m,
    ],
    [
      "steps of no length",
      ["--eval_fraction=0.1", "--eval_steps=0"],
      /^error: --eval_steps=0: expected a whole number/m,
    ],
    [
      "no patience",
      ["--eval_fraction=0.1", "--early_stopping_patience=0"],
      /^error: --early_stopping_patience=0: expected/m,
    ],
  ] as const) {
    it(`is refused in one line: ${what}`, async () => {
      const given = [
        `--model_name_or_path=${DATA}/encoder`,
        `--dataset_name=${DATA}/pairs/train.csv`,
        "--output_dir=x",
      ];
      const { code, stdout, stderr } = await runHere([...given, ...flags]);
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toMatch(message);
      expect(stderr.trim().split("\n").length).toBeLessThanOrEqual(2);
    });
  }
});
