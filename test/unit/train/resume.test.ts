import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { PeftTrainError } from "../../../lib/errors.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { collect, fakeTraining } from "../../support/fake-training.js";
import { writePairs } from "../../support/pairs-file.js";

const { temporary, files, options } = fakeTraining({ options: { loggingSteps: 3, checkpointingSteps: 2 } });

const start = (given: TrainOptions, engine = new FakeEngine()) => train(given, { engine: () => engine });

/** Fails at this step, as a run that is killed there: nothing is saved on the way out. */
async function killedAt(step: number, given: TrainOptions): Promise<void> {
  const engine = new FakeEngine();
  engine.onStep = (at) => {
    if (at === step) throw new PeftTrainError("INTERNAL", "killed");
    return undefined;
  };
  await expect(start(given, engine).result).rejects.toMatchObject({ code: "INTERNAL" });
}

const weights = (given: TrainOptions) => readFileSync(join(given.outputDir, "adapter_model.safetensors"));

/** The log without times and folders. */
function logOf({ outputDir }: TrainOptions): unknown[] {
  const lines = readFileSync(join(outputDir, "train_log.jsonl"), "utf8").trim().split("\n");
  return lines
    .map((line) => JSON.parse(line.replaceAll(outputDir, "OUT")))
    .filter(({ event }) => event !== "resumed")
    .map(({ seconds: _, pairs_per_second: __, peak_resident_bytes: ___, files, ...rest }) => ({
      ...rest,
      files: files?.map(({ name }: { name: string }) => name),
    }));
}

describe("a run that goes on from a checkpoint", () => {
  it("ends as one that never stopped, log and record included, wherever it was killed", async () => {
    for (const changes of [{}, { checkpointingSteps: "epoch" as const }, { checkpointingSteps: 1 }]) {
      const whole = options(changes);
      await start(whole).result;
      for (let step = 1; step < 10; step++) {
        const given = options(changes);
        await killedAt(step, given);
        const engine = new FakeEngine();
        const events = await collect(start({ ...given, resumeFromCheckpoint: "latest" }, engine));
        expect(weights(given).equals(weights(whole)), `killed at ${step}`).toBe(true);
        for (const name of ["peft_train.json", "adapter_config.json"]) {
          expect(readFileSync(join(given.outputDir, name))).toEqual(
            readFileSync(join(whole.outputDir, name)),
          );
        }
        expect(logOf(given)).toEqual(logOf(whole));
        expect(readdirSync(given.outputDir).sort()).toEqual(readdirSync(whole.outputDir).sort());
        const resumed = events.find(({ event }) => event === "resumed");
        const first = changes.checkpointingSteps === "epoch" ? step - (step % 5) : step - (step % 2);
        if (changes.checkpointingSteps !== 1 && first > 0) expect(resumed).toMatchObject({ step: first });
        expect(engine.steps[0]?.options.step).toBe((resumed as { step: number } | undefined)?.step ?? 0);
      }
    }
  });

  it("starts from the beginning where nothing was saved yet, and says so", async () => {
    const given = options({ resumeFromCheckpoint: "latest" });
    const events = await collect(start(given));
    expect(events.find(({ event }) => event === "warning")).toMatchObject({
      message: expect.stringContaining("no checkpoint in"),
    });
    expect(events.at(-1)).toMatchObject({ event: "finished", steps: 10 });
  });

  it("replaces a run that was killed before its first checkpoint, and not one that finished", async () => {
    const given = options({ checkpointingSteps: 8, resumeFromCheckpoint: "latest" });
    await killedAt(6, given);
    expect(existsSync(join(given.outputDir, "adapter_config.json"))).toBe(true);
    expect(await start(given).result).toMatchObject({ steps: 10, stopped: false });
    const finished = options({ checkpointingSteps: null });
    await start(finished).result;
    await expect(start({ ...finished, resumeFromCheckpoint: "latest" }).result).rejects.toMatchObject({
      code: "OUTPUT_EXISTS",
      message: expect.stringContaining("earlier run"),
    });
  });

  it("may be given again when it has finished, and changes nothing", async () => {
    const given = options({ checkpointingSteps: "epoch", resumeFromCheckpoint: "latest" });
    await start(given).result;
    const [before, log] = [weights(given), logOf(given).length];
    const engine = new FakeEngine();
    expect(await start(given, engine).result).toMatchObject({ steps: 10, stopped: false, savedStep: 10 });
    expect(engine.steps).toEqual([]);
    expect(weights(given)).toEqual(before);
    expect(logOf(given)).toHaveLength(log);
  });

  it("takes a checkpoint by its folder, also into another output folder", async () => {
    const whole = options();
    await start(whole).result;
    const given = options({ resumeFromCheckpoint: join(whole.outputDir, "step_4") });
    const engine = new FakeEngine();
    await start(given, engine).result;
    expect(engine.steps[0]?.options.step).toBe(4);
    expect(weights(given)).toEqual(weights(whole));
    expect(readdirSync(given.outputDir)).not.toContain("step_4");
    // In place, later checkpoints are written anew.
    const again = { ...whole, resumeFromCheckpoint: join(whole.outputDir, "step_2") };
    await start(again).result;
    expect(weights(again)).toEqual(weights(given));
  });

  it("skips damaged checkpoints and names them", async () => {
    const given = options();
    await killedAt(9, given);
    const file = join(given.outputDir, "step_8", "optimizer.safetensors");
    writeFileSync(file, "9");
    rmSync(join(given.outputDir, "step_6", "manifest.json"));
    const events = await collect(start({ ...given, resumeFromCheckpoint: "latest" }));
    const warnings = events.flatMap((event) => (event.event === "warning" ? [event.message] : []));
    expect(warnings).toEqual([
      expect.stringMatching(/skipped: .*step_6 is not a whole checkpoint: it has no manifest\.json/),
      expect.stringMatching(/skipped: .*step_8 .*optimizer\.safetensors has SHA-256 \w+, expected \w+/),
    ]);
    expect(events.find(({ event }) => event === "resumed")).toMatchObject({ step: 4 });
    const whole = options();
    await start(whole).result;
    expect(weights(given)).toEqual(weights(whole));
  });

  it("is refused when no checkpoint is whole, unless it may overwrite", async () => {
    const given = options({ resumeFromCheckpoint: "latest" });
    await killedAt(5, given);
    for (const name of ["step_2", "step_4"]) {
      writeFileSync(join(given.outputDir, name, "adapter_model.safetensors"), "x");
    }
    await expect(start(given).result).rejects.toMatchObject({
      code: "CHECKPOINT_CORRUPT",
      message: expect.stringMatching(
        /no checkpoint in .* is whole: .*step_4.*has 1 bytes, expected \d+.*step_2/,
      ),
    });
    await expect(
      start({ ...given, resumeFromCheckpoint: join(given.outputDir, "step_4") }).result,
    ).rejects.toMatchObject({ code: "CHECKPOINT_CORRUPT" });
    expect(await start({ ...given, overwriteOutputDir: true }).result).toMatchObject({ steps: 10 });
  });

  it("is refused with other data, another base or settings, and the message says which", async () => {
    const given = options();
    await killedAt(5, given);
    const other = writePairs(temporary.path("other.csv"), 23, 9);
    cpSync(files.model, temporary.path("other-model"), { recursive: true });
    const tokenizer = temporary.path("other-model", "tokenizer.json");
    writeFileSync(tokenizer, `${readFileSync(tokenizer, "utf8")} `);
    const cases: [Partial<TrainOptions>, RegExp][] = [
      [{ datasetName: other }, /--dataset_name has SHA-256 \w{64}; that of .*other\.csv is \w{64}/],
      [{ evalDatasetName: other }, /--eval_dataset_name has SHA-256/],
      [{ evalDatasetName: null }, /--eval_dataset_name has SHA-256 \w+; this run has no such file/],
      [
        { modelNameOrPath: temporary.path("other-model") },
        /tokenizer\.json has SHA-256 \w+; that of .* has SHA-256 \w+/,
      ],
      [{ learningRate: 1e-3, seed: 1 }, /--learning_rate was 0\.0005 and is 0\.001; --seed was 42 and is 1/],
      [{ lrSchedulerType: "cosine" }, /--lr_scheduler_type was "linear" and is "cosine"/],
      [{ numTrainEpochs: 3 }, /of a run of 10 steps, this one has 15; .*linear depend on that/],
      [{ numWarmupSteps: 2 }, /a run with 0 steps of warm-up, this one has 2/],
    ];
    for (const [changes, message] of cases) {
      const before = readdirSync(given.outputDir);
      await expect(
        start({ ...given, ...changes, resumeFromCheckpoint: "latest" }).result,
        String(message),
      ).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH", message: expect.stringMatching(message) });
      expect(readdirSync(given.outputDir)).toEqual(before);
    }
  });

  it("goes on where files have moved or what does not matter has changed, and can be made longer", async () => {
    const given = options({ lrSchedulerType: "constant", maxTrainSteps: 3, checkpointingSteps: "epoch" });
    await start(given).result;
    const moved = temporary.path("moved.csv");
    cpSync(files.pairs, moved);
    const engine = new FakeEngine();
    const longer = {
      ...given,
      datasetName: moved,
      maxTrainSteps: null,
      resumeFromCheckpoint: "latest",
      loggingSteps: 1,
      perDeviceEvalBatchSize: 3,
      saveTotalLimit: 1,
    };
    await start(longer, engine).result;
    expect(engine.steps.map((step) => step.options.step)).toEqual([3, 4, 5, 6, 7, 8, 9]);
    expect(readdirSync(given.outputDir).filter((name) => name.startsWith("epoch_"))).toEqual(["epoch_1"]);
    await expect(start({ ...longer, maxTrainSteps: 4 }).result).rejects.toMatchObject({
      message: expect.stringContaining("of step 10, beyond the 4 steps of this run"),
    });
  });

  it("warns where the machine may change the last bits", async () => {
    const given = options();
    await killedAt(5, given);
    const engine = new FakeEngine();
    engine.info = () => ({
      engineVersion: "fake",
      torchVersion: "0.0.0",
      cudaDevices: 0,
      cpuKernels: "avx2",
      fastBfloat16: false,
    });
    const events = await collect(start({ ...given, resumeFromCheckpoint: "latest" }, engine));
    expect(events).toContainEqual({
      event: "warning",
      message: expect.stringMatching(/step_4 was written with vector kernels generic, now avx2/),
    });
  });

  it("is refused where the flag names no checkpoint", async () => {
    const file = temporary.path("train.csv");
    for (const [asked, code, message] of [
      ["none", "FILE_NOT_FOUND", "--resume_from_checkpoint=none: there is no file none"],
      [file, "FILE_UNREADABLE", "is a file, not a folder"],
      [temporary.path("model"), "CHECKPOINT_CORRUPT", "it has no manifest.json"],
    ] as const) {
      await expect(start(options({ resumeFromCheckpoint: asked })).result).rejects.toMatchObject({
        code,
        message: expect.stringContaining(message),
      });
    }
  });

  it("is refused where the flag names the folder of a run, and says which checkpoint to give", async () => {
    const given = options({ checkpointingSteps: 2 });
    await start(given).result;
    await expect(start({ ...given, resumeFromCheckpoint: given.outputDir }).result).rejects.toMatchObject({
      code: "USAGE",
      message: `--resume_from_checkpoint=${given.outputDir}: expected a checkpoint, found the folder of a run`,
      hint: `Give ${join(given.outputDir, "step_10")}, or latest with --output_dir=${given.outputDir}.`,
    });
  });
});

describe("checkpoints", () => {
  it("are pruned to save_total_limit, the newest kept", async () => {
    const given = options({ checkpointingSteps: 1, saveTotalLimit: 3 });
    await start(given).result;
    expect(
      readdirSync(given.outputDir)
        .filter((name) => name.startsWith("step_"))
        .sort(),
    ).toEqual(["step_10", "step_8", "step_9"]);
  });

  it("are written on stop(), once, and go on to the same end", async () => {
    const given = options({ checkpointingSteps: null });
    const run = start(given);
    for await (const event of run) if (event.event === "step" && event.step === 3) run.stop();
    const { steps, checkpoint, stopped } = await run.result;
    expect(stopped).toBe(true);
    expect(checkpoint).toBe(join(given.outputDir, `step_${steps}`));
    await start({ ...given, resumeFromCheckpoint: "latest" }).result;
    const whole = options({ checkpointingSteps: null });
    await start(whole).result;
    expect(weights(given)).toEqual(weights(whole));
  });

  it("of before stay when the disk is full, and the error names the last", async () => {
    const given = options();
    const engine = new FakeEngine();
    engine.onSave = (file) => {
      if (engine.steps.length < 4 || !file.endsWith("optimizer.safetensors")) return;
      throw new PeftTrainError("OUTPUT_UNWRITABLE", `Cannot write ${file}: No space left on device`);
    };
    await expect(start(given, engine).result).rejects.toMatchObject({
      code: "OUTPUT_UNWRITABLE",
      message: expect.stringMatching(/^step 4 of 10: .*No space left.*step_2 of step 2 is whole\)$/),
      hint: expect.stringContaining("--resume_from_checkpoint=latest"),
    });
    expect(readdirSync(given.outputDir).sort()).toEqual(["step_2", "train_log.jsonl"]);
    await start({ ...given, resumeFromCheckpoint: "latest" }).result;
    const whole = options();
    await start(whole).result;
    expect(weights(given)).toEqual(weights(whole));
  });
});
