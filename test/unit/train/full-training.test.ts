import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { PeftTrainError } from "../../../lib/errors.js";
import { openModelFolder } from "../../../lib/model/folder.js";
import { requireTrainable } from "../../../lib/train/options/full-training.js";
import {
  resolveOptions,
  resolveTrainOptions,
  type TrainOptions,
} from "../../../lib/train/options/options.js";
import { modelCard } from "../../../lib/train/output/model-card.js";
import { planRun } from "../../../lib/train/preparation.js";
import { train } from "../../../lib/train/train.js";
import { FakeEngine } from "../../support/fake-engine.js";
import { collect, fakeTraining } from "../../support/fake-training.js";

const { files, options } = fakeTraining({
  options: { usePeft: false, learningRate: 2e-5 },
  model: { config: { torch_dtype: "float16", mine: 1 } },
});

const start = (given: TrainOptions, engine = new FakeEngine()) => train(given, { engine: () => engine });

const json = (...names: string[]) => JSON.parse(readFileSync(join(...names), "utf8"));

describe("training all parameters", () => {
  it("opens the model as trainable, makes no adapter, and asks another one for the base model's scores", async () => {
    const engine = new FakeEngine();
    const opened: (boolean | undefined)[] = [];
    const open = engine.open.bind(engine);
    engine.open = (given) => {
      opened.push(given.trainable);
      return open(given);
    };
    const events = await collect(start(options(), engine));
    expect(opened).toEqual([true, undefined]);
    expect(engine.spec).toBeUndefined();
    expect(engine.closed).toBe(3);
    expect(events.find(({ event }) => event === "started")).toMatchObject({
      adaptedModules: 0,
      trainableParameters: 33_000_000,
      allParameters: 33_360_000,
    });
  });

  it("saves a folder of transformers and sentence-transformers", async () => {
    const given = options({ maxLength: 40, question2Prefix: "passage: ", pooling: "cls" });
    await start(given).result;
    const folder = given.outputDir;
    expect(readdirSync(folder).sort()).toEqual([
      "1_Pooling",
      "2_Normalize",
      "config.json",
      "config_sentence_transformers.json",
      "model.safetensors",
      "modules.json",
      "peft_train.json",
      "report.html",
      "sentence_bert_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "train_config.json",
      "train_log.jsonl",
    ]);
    expect(json(folder, "config.json")).toMatchObject({
      torch_dtype: "float32",
      mine: 1,
      model_type: "bert",
    });
    expect(json(folder, "sentence_bert_config.json").max_seq_length).toBe(40);
    expect(json(folder, "config_sentence_transformers.json").prompts).toEqual({
      query: "query: ",
      document: "passage: ",
    });
    expect(json(folder, "peft_train.json")).toMatchObject({ max_length: 40, pooling: "cls", step: 10 });
    expect(json(folder, "peft_train.json").training.options).not.toHaveProperty("lora_r");
  });

  it("is repeated by its configuration", async () => {
    const given = options();
    await start(given).result;
    const config = json(given.outputDir, "train_config.json");
    expect(config.use_peft).toBe(false);
    expect(Object.keys(config).filter((name) => /lora|alpha/.test(name))).toEqual([]);
    expect(resolveOptions(config)).toMatchObject({ usePeft: false, learningRate: 2e-5 });
  });

  it("saves checkpoints that are models, and goes on from them as if it had never stopped", async () => {
    const changes = { checkpointingSteps: 2, loadBestModelAtEnd: true, metricForBestModel: "loss" } as const;
    const whole = options(changes);
    await start(whole).result;
    const weights = (given: TrainOptions) => readFileSync(join(given.outputDir, "model.safetensors"));
    for (const step of [1, 3, 8]) {
      const given = options(changes);
      const engine = new FakeEngine();
      engine.onStep = (at) => {
        if (at === step) throw new PeftTrainError("INTERNAL", "killed");
        return undefined;
      };
      await expect(start(given, engine).result).rejects.toMatchObject({ code: "INTERNAL" });
      await start({ ...given, resumeFromCheckpoint: "latest" }).result;
      expect(weights(given).equals(weights(whole)), `killed at ${step}`).toBe(true);
      expect(readdirSync(given.outputDir).sort()).toEqual(readdirSync(whole.outputDir).sort());
    }
    const checkpoint = join(whole.outputDir, "step_8");
    expect(readdirSync(checkpoint)).toEqual(expect.arrayContaining(["model.safetensors", "1_Pooling"]));
    expect(Object.keys(json(checkpoint, "manifest.json").files)).toContain("1_Pooling/config.json");
    writeFileSync(join(checkpoint, "1_Pooling", "config.json"), "{}");
    const damaged = start({ ...whole, resumeFromCheckpoint: checkpoint });
    await expect(damaged.result).rejects.toMatchObject({
      code: "CHECKPOINT_CORRUPT",
      message: expect.stringContaining("1_Pooling/config.json"),
    });
  });

  it("does not go on from an adapter's checkpoint, nor an adapter's run from its own", async () => {
    const given = options({ usePeft: true, checkpointingSteps: 5 });
    await start(given).result;
    const checkpoint = join(given.outputDir, "step_5");
    await expect(start(options({ resumeFromCheckpoint: checkpoint })).result).rejects.toMatchObject({
      code: "CHECKPOINT_MISMATCH",
      message: expect.stringContaining("--use_peft was true and is false"),
    });
  });

  it("replaces an adapter's run, and an adapter's run replaces it, without a file of either left", async () => {
    const given = options({ usePeft: true });
    await start(given).result;
    await start({ ...given, usePeft: false, overwriteOutputDir: true }).result;
    expect(existsSync(join(given.outputDir, "adapter_config.json"))).toBe(false);
    expect(existsSync(join(given.outputDir, "adapter_model.safetensors"))).toBe(false);
    await start({ ...given, overwriteOutputDir: true }).result;
    for (const name of ["config.json", "model.safetensors", "1_Pooling", "modules.json"])
      expect(existsSync(join(given.outputDir, name)), name).toBe(false);
  });

  it("keeps and anchors what the model was before training", async () => {
    const engine = new FakeEngine();
    await start(options({ anchor: "question2", keepWeight: 1, report: false }), engine).result;
    const firstStep = engine.steps[0]?.batch;
    expect(firstStep?.fixed?.count).toBe(1);
    expect(firstStep?.kept?.weight).toBe(1);
  });

  it("warns of an adapter's learning rate", async () => {
    const warnings = async (learningRate: number) =>
      (await planRun(resolveTrainOptions(options({ learningRate })))).warnings;
    expect(await warnings(5e-4)).toEqual([
      expect.stringContaining("--learning_rate=0.0005 is usual for an adapter"),
    ]);
    expect(await warnings(5e-5)).toEqual([]);
  });

  it("has a model card of a whole model", async () => {
    const plan = await planRun(resolveTrainOptions(options()));
    const result = await start(options()).result;
    const card = modelCard("me/mine", plan, result);
    expect(card).toContain("library_name: sentence-transformers");
    expect(card).toContain('SentenceTransformer("me/mine")');
    expect(card).not.toContain("LoRA");
  });
});

describe("without use_peft is refused", () => {
  for (const [given, message] of [
    [{ loraR: 8 }, "loraR is of a LoRA adapter, and usePeft=false trains none"],
    [{ useRslora: false }, "useRslora is of a LoRA adapter"],
    [{ loraTargetModules: ["query"] }, "loraTargetModules is of a LoRA adapter"],
    [{ loadIn4bit: true }, "loadIn4bit is for weights that stand still"],
    [{ loadIn8bit: true }, "loadIn8bit is for weights that stand still"],
    [{ compute: "int8" }, "compute=int8 is for weights that stand still"],
    [{ torchDtype: "bfloat16" }, "torchDtype=bfloat16 is for weights that stand still"],
  ] as [Partial<TrainOptions>, string][]) {
    it(JSON.stringify(given), () => {
      expect(() => resolveTrainOptions(options(given))).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(message) }),
      );
    });
  }

  it("a quantised model", async () => {
    const folder = await openModelFolder(files.model);
    const quantized = {
      format: "nf4",
      blockSize: 64,
      doubleQuant: false,
      outlierFraction: 0,
      outlierThreshold: 6,
    } as const;
    expect(() => requireTrainable({ ...folder, quantized })).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringContaining("are quantised, as nf4") }),
    );
  });
});

it("a run does not write over the model that it reads, whatever it trains", async () => {
  for (const usePeft of [true, false]) {
    const given = options({ outputDir: files.model, overwriteOutputDir: true, usePeft });
    await expect(start(given).result).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("is the folder of the model itself"),
    });
  }
});
