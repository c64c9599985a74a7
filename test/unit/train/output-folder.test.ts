import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { PeftTrainError } from "../../../lib/errors.js";
import type { TrainOptions } from "../../../lib/train/options/options.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { fakeTraining } from "../../support/fake-training.js";

const { temporary, options } = fakeTraining();

describe("the output folder", () => {
  it("holds the adapter, the tokenizer, peft_train.json and the log, and no working files", async () => {
    const given = options({ checkpointingSteps: "epoch" });
    await train(given, { engine: () => new FakeEngine() }).result;
    expect(readdirSync(given.outputDir).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "epoch_0",
      "epoch_1",
      "peft_train.json",
      "report.html",
      "tokenizer.json",
      "tokenizer_config.json",
      "train_config.json",
      "train_log.jsonl",
    ]);
    expect(readdirSync(join(given.outputDir, "epoch_0"))).toContain("adapter_model.safetensors");
    expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
    const log = readFileSync(join(given.outputDir, "train_log.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const kinds = log.map(({ event }) => event);
    expect(kinds[0]).toBe("started");
    expect(kinds.at(-1)).toBe("finished");
    expect(kinds.filter((kind) => kind === "evaluated")).toHaveLength(3);
    const record = JSON.parse(readFileSync(join(given.outputDir, "peft_train.json"), "utf8"));
    expect(record).toMatchObject({ step: 10, epoch: 2, max_length: 64, question1_prefix: "query: " });
    expect(record.threshold).toBe(
      log.filter(({ event }) => event === "evaluated").at(-1).metrics.accuracy_threshold,
    );
  });

  it("keeps checkpoints of every N steps, also before the first epoch has ended", async () => {
    const given = options({ checkpointingSteps: 2, maxTrainSteps: 5 });
    await train(given, { engine: () => new FakeEngine() }).result;
    expect(readdirSync(given.outputDir).filter((name) => name.startsWith("step_"))).toEqual([
      "step_2",
      "step_4",
    ]);
    const weights = readFileSync(join(given.outputDir, "step_2", "adapter_model.safetensors"));
    expect(weights.readFloatLE(weights.length - 4)).toBe(2);
  });

  it("is refused when it is a file, holds something else or an earlier run, and is then left alone", async () => {
    const file = temporary.path("a-file");
    writeFileSync(file, "x");
    await expect(train(options({ outputDir: file })).result).rejects.toMatchObject({ code: "OUTPUT_EXISTS" });
    await expect(train(options({ outputDir: join(file, "out") })).result).rejects.toMatchObject({
      code: "OUTPUT_UNWRITABLE",
    });
    const foreign = temporary.path("foreign");
    mkdirSync(foreign);
    writeFileSync(join(foreign, "thesis.tex"), "x");
    await expect(train(options({ outputDir: foreign })).result).rejects.toMatchObject({
      code: "OUTPUT_EXISTS",
      message: expect.stringContaining("thesis.tex"),
    });
    expect(readdirSync(foreign)).toEqual(["thesis.tex"]);
    const earlier = options();
    await train(earlier, { engine: () => new FakeEngine() }).result;
    await expect(train(earlier).result).rejects.toMatchObject({
      code: "OUTPUT_EXISTS",
      message: expect.stringContaining("earlier run"),
      hint: expect.stringContaining("--overwrite_output_dir"),
    });
  });

  it("is replaced with overwrite_output_dir, and other people's files in it stay", async () => {
    const given = options({ checkpointingSteps: "epoch" });
    await train(given, { engine: () => new FakeEngine() }).result;
    writeFileSync(join(given.outputDir, "notes.txt"), "mine");
    const again = { ...given, overwriteOutputDir: true, numTrainEpochs: 1, checkpointingSteps: null };
    await train(again, { engine: () => new FakeEngine() }).result;
    expect(readdirSync(given.outputDir)).not.toContain("epoch_0");
    expect(readFileSync(join(given.outputDir, "notes.txt"), "utf8")).toBe("mine");
    expect(JSON.parse(readFileSync(join(given.outputDir, "peft_train.json"), "utf8")).step).toBe(5);
    const log = readFileSync(join(given.outputDir, "train_log.jsonl"), "utf8");
    expect(log.match(/"event":"started"/g)).toHaveLength(1);
  });

  it("of a run that ended before its first epoch is replaced too, checkpoints and all", async () => {
    const given = options({ checkpointingSteps: 2 });
    const engine = new FakeEngine();
    engine.onStep = (step) => {
      if (step === 4) throw new PeftTrainError("NOT_FINITE", "the gradient is not finite");
      return undefined;
    };
    await expect(train(given, { engine: () => engine }).result).rejects.toMatchObject({ code: "NOT_FINITE" });
    expect(readdirSync(given.outputDir).sort()).toEqual(["step_2", "step_4", "train_log.jsonl"]);
    await expect(train(given).result).rejects.toMatchObject({
      message: expect.stringContaining("earlier run"),
    });
    const again = { ...given, overwriteOutputDir: true, checkpointingSteps: 4, maxTrainSteps: 5 };
    await train(again, { engine: () => new FakeEngine() }).result;
    expect(readdirSync(given.outputDir).filter((name) => /^step_/.test(name))).toEqual(["step_4"]);
    const weights = readFileSync(join(given.outputDir, "step_4", "adapter_model.safetensors"));
    expect(weights.readFloatLE(weights.length - 4)).toBe(4);
  });

  it("that has files of our names which no run wrote is refused, even to be overwritten", async () => {
    const given = options({ checkpointingSteps: "epoch", overwriteOutputDir: true });
    mkdirSync(join(given.outputDir, "epoch_1"), { recursive: true });
    writeFileSync(join(given.outputDir, "epoch_1", "optimizer.bin"), "x");
    await expect(train(given, { engine: () => new FakeEngine() }).result).rejects.toMatchObject({
      code: "OUTPUT_EXISTS",
      message: expect.stringContaining("epoch_1"),
    });
    expect(readdirSync(join(given.outputDir, "epoch_1"))).toEqual(["optimizer.bin"]);
  });

  it("of an earlier run stays whole until the first save of the new one", async () => {
    const given = options();
    await train(given, { engine: () => new FakeEngine() }).result;
    const before = readdirSync(given.outputDir).map((name) =>
      readFileSync(join(given.outputDir, name), "utf8"),
    );
    const engine = new FakeEngine();
    engine.onStep = (step) => {
      if (step === 2) throw new PeftTrainError("NOT_FINITE", "the gradient is not finite");
      return undefined;
    };
    const again = train({ ...given, overwriteOutputDir: true }, { engine: () => engine });
    await expect(again.result).rejects.toMatchObject({ code: "NOT_FINITE" });
    const after = readdirSync(given.outputDir).map((name) =>
      readFileSync(join(given.outputDir, name), "utf8"),
    );
    expect(after).toEqual(before);
  });

  it("is not there after a run that failed before its first save, nor are folders made for it", async () => {
    const engine = new FakeEngine();
    engine.onStep = () => ({ loss: Number.NaN, gradNorm: 1 });
    const given = options({ outputDir: temporary.path("new", "deep", "out") });
    await expect(train(given, { engine: () => engine }).result).rejects.toMatchObject({
      code: "NOT_FINITE",
      message: expect.stringMatching(/^step 1 of 10: .*nothing was saved/),
    });
    expect(existsSync(temporary.path("new"))).toBe(false);
    expect(engine.closed).toBe(1);
  });

  it("is not touched when the data is bad", async () => {
    const oneClass = temporary.path("one-class.csv");
    writeFileSync(oneClass, "question1,question2,is_duplicate\na,b,1\nc,d,1\n");
    const empty = temporary.path("empty.csv");
    writeFileSync(empty, "");
    const cases: [Partial<TrainOptions>, string][] = [
      [{ datasetName: oneClass }, "DATA_LABEL"],
      [{ evalDatasetName: oneClass }, "DATA_LABEL"],
      [{ datasetName: empty }, "DATA_EMPTY"],
      [{ datasetName: temporary.path("none.csv") }, "FILE_NOT_FOUND"],
      [{ labelColumn: "same" }, "DATA_COLUMN"],
    ];
    for (const [changes, code] of cases) {
      const given = options(changes);
      await expect(train(given).result, code).rejects.toMatchObject({ code });
      expect(existsSync(given.outputDir)).toBe(false);
    }
    expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("is written by one run at a time", async () => {
    const given = options();
    const engine = new FakeEngine();
    let other: Promise<unknown> | undefined;
    engine.onStep = (step) => {
      if (step === 1 || step === 7) {
        other = expect(
          train({ ...given, overwriteOutputDir: true }, { engine: () => new FakeEngine() }).result,
        ).rejects.toMatchObject({ code: "OUTPUT_EXISTS", message: expect.stringContaining("is writing to") });
      }
      return undefined;
    };
    const first = train(given, { engine: () => engine });
    for await (const event of first) if (event.event === "step") await other;
    expect(existsSync(join(given.outputDir, "adapter_model.safetensors"))).toBe(true);
  });

  it("is freed of what a killed run left behind", async () => {
    const given = options();
    const left = join(temporary.path(), `.${given.outputDir.split("/").at(-1)}.peft-train-partial`);
    mkdirSync(left);
    // Beyond the largest pid of Linux, so no process has it.
    writeFileSync(join(left, "pid"), "99999999\n");
    await train(given, { engine: () => new FakeEngine() }).result;
    expect(existsSync(left)).toBe(false);
  });
});
