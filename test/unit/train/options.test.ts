import { describe, expect, it } from "vitest";
import { parseOption } from "../../../lib/train/options/option-value.js";
import {
  resolveOptions,
  resolveTrainOptions,
  type TrainOptions,
} from "../../../lib/train/options/options.js";

const REQUIRED = { model_name_or_path: "m", dataset_name: "d.csv", output_dir: "out" };

describe("options from a command line", () => {
  it("default to the article's", () => {
    expect(resolveOptions(REQUIRED)).toMatchObject({
      loraR: 8,
      loraAlpha: 16,
      loraDropout: 0,
      loraTargetModules: ["query", "key", "value"],
      learningRate: 5e-4,
      lrSchedulerType: "linear",
      weightDecay: 0,
      adamBeta1: 0.9,
      adamBeta2: 0.999,
      adamEpsilon: 1e-8,
      numTrainEpochs: 3,
      maxTrainSteps: null,
      prefix: "query: ",
      question1Prefix: null,
      seed: 42,
      loggingSteps: 100,
      dropout: null,
    });
  });

  it("are read as the article writes them", () => {
    const given = {
      ...REQUIRED,
      mixed_precision: "no",
      max_length: "70",
      learning_rate: "5e-4",
      weight_decay: "0.0",
      num_train_epochs: "3",
      checkpointing_steps: "epoch",
      use_peft: true,
    };
    expect(resolveOptions(given)).toMatchObject({
      maxLength: 70,
      learningRate: 0.0005,
      weightDecay: 0,
      checkpointingSteps: "epoch",
    });
  });

  for (const [name, value] of [
    ["learning_rate", "NaN"],
    ["learning_rate", "1e9"],
    ["learning_rate", "0"],
    ["learning_rate", "0x10"],
    ["learning_rate", "-1"],
    ["learning_rate", ""],
    ["per_device_train_batch_size", "0"],
    ["per_device_train_batch_size", "2147483648"],
    ["per_device_eval_batch_size", "1.5"],
    ["num_train_epochs", "0"],
    ["num_train_epochs", "1.5"],
    ["max_train_steps", "0"],
    ["gradient_accumulation_steps", "0"],
    ["num_warmup_steps", "-1"],
    ["lora_r", "0"],
    ["lora_alpha", "0"],
    ["lora_dropout", "1"],
    ["lora_target_modules", ""],
    ["dropout", "1"],
    ["eval_fraction", "0"],
    ["eval_fraction", "1"],
    ["max_length", "2"],
    ["max_grad_norm", "-0.1"],
    ["adam_beta1", "1"],
    ["adam_epsilon", "0"],
    ["lr_scheduler_type", "linaer"],
    ["lr_scheduler_kwargs", "num_cycles=3"],
    ["lr_scheduler_kwargs", "3"],
    ["warmup_ratio", "1.5"],
    ["save_total_limit", "0"],
    ["resume_from_checkpoint", ""],
    ["pooling", "max"],
    ["checkpointing_steps", "0"],
    ["checkpointing_steps", "epochs"],
    ["checkpointing_steps", "2147483648"],
    ["max_train_steps", "2147483648"],
    ["num_warmup_steps", "1e10"],
    ["logging_steps", "2147483648"],
    ["logging_steps", "0"],
    ["device", "gpu"],
    ["seed", "-1"],
    ["seed", "9007199254740993"],
    ["use_peft", "yes"],
    ["model_name_or_path", ""],
    ["mixed_precision", "fp17"],
  ] as const) {
    it(`refuse --${name}=${value}, naming the flag, the value and what is allowed`, () => {
      expect(() => resolveOptions({ ...REQUIRED, [name]: value })).toThrow(
        expect.objectContaining({
          code: "USAGE",
          message: expect.stringMatching(`^--${name}${value === "" ? "" : `=${value}`}: expected `),
        }),
      );
    });
  }

  it("say the range that a whole number must be in", () => {
    for (const [name, value, range] of [
      ["max_train_steps", "2147483648", "at least 1 and at most 2147483647"],
      ["checkpointing_steps", "2147483648", "at least 1 and at most 2147483647, or epoch"],
      ["seed", "9007199254740993", "at least 0 and at most 9007199254740991"],
    ] as const) {
      expect(() => resolveOptions({ ...REQUIRED, [name]: value })).toThrow(
        `--${name}=${value}: expected a whole number of ${range}`,
      );
    }
  });

  it("name all that are missing", () => {
    expect(() => resolveOptions({ dataset_name: "d.csv" })).toThrow(
      expect.objectContaining({ message: "--model_name_or_path, --output_dir are required" }),
    );
  });

  it("refuse what is not there yet by name, and not as a mistake", () => {
    expect(() => resolveOptions({ ...REQUIRED, mixed_precision: "fp8" })).toThrow(
      expect.objectContaining({
        code: "NOT_YET_AVAILABLE",
        message: expect.stringContaining("--mixed_precision=fp8"),
      }),
    );
  });

  it("refuse two evaluation sets", () => {
    expect(() => resolveOptions({ ...REQUIRED, eval_dataset_name: "e.csv", eval_fraction: "0.1" })).toThrow(
      expect.objectContaining({ code: "USAGE" }),
    );
  });
});

describe("--lora_target_modules", () => {
  for (const [text, expected] of [
    ["query", ["query"]],
    ["query,value", ["query", "value"]],
    [
      "attention.output.dense,encoder.layer.0.output.dense",
      ["attention.output.dense", "encoder.layer.0.output.dense"],
    ],
    ["all-linear", "all-linear"],
    [".*\\.(query|key)", ".*\\.(query|key)"],
    [".{1,2}", ".{1,2}"],
    [".*\\.[0-5, ]\\..*(query, |key)", ".*\\.[0-5, ]\\..*(query, |key)"],
    ["query, key, value", ["query", "key", "value"]],
    ["query,key,", ["query", "key"]],
    [" query key ", ["query", "key"]],
    ["query,\n  key", ["query", "key"]],
    [" all-linear ", "all-linear"],
    [".*query,", ".*query"],
  ] as const) {
    it(`${text} is ${Array.isArray(expected) ? "a list" : "passed on whole"}`, () => {
      expect(parseOption("lora_target_modules", text)).toEqual(expected);
    });
  }

  for (const [text, found] of [
    ["query,.*key", "found .*key among them, which is a regular expression"],
    ["query, all-linear", "found all-linear among them"],
  ] as const) {
    it(`${text} is refused: PEFT would look for a module of that very name`, () => {
      expect(() => parseOption("lora_target_modules", text)).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(found) }),
      );
    });
  }

  it("of commas alone is no value", () => {
    expect(() => parseOption("lora_target_modules", " , ")).toThrow(/expected module names/);
  });
});

describe("options from a program", () => {
  const required: TrainOptions = { modelNameOrPath: "m", datasetName: "d.csv", outputDir: "out" };

  it("are named in camel case, in errors too", () => {
    expect(resolveTrainOptions({ ...required, learningRate: 1e-3 }).learningRate).toBe(1e-3);
    expect(() => resolveTrainOptions({ ...required, learningRate: Number.NaN })).toThrow(
      /^learningRate=NaN: expected/,
    );
    expect(() => resolveTrainOptions({ ...required, maxLength: undefined })).not.toThrow();
  });

  it("that do not exist are refused with the nearest", () => {
    const wrong = { ...required, learningrate: 1 } as TrainOptions;
    expect(() => resolveTrainOptions(wrong)).toThrow(
      expect.objectContaining({ code: "USAGE", hint: "Did you mean learningRate?" }),
    );
  });
});
