import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import type { LoadOptions } from "../../lib/encoder-options.js";
import { frozenBytes, heldAs } from "../../lib/inspect/frozen-bytes.js";
import { inspect } from "../../lib/inspect/inspect.js";
import { type Outcome, runCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { copyQuantModel } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const adapters = fileURLToPath(new URL("../fixtures/combine/adapters", import.meta.url));
const run = (...args: string[]): Promise<Outcome> => runCli(args, { cwd: temporary.path() });
const look = async (...args: string[]): Promise<string> => {
  const { stdout, stderr, code } = await run("inspect", ...args);
  expect([stderr, code]).toEqual(["", 0]);
  return stdout;
};

beforeAll(async () => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 60);
  const { code } = await run(
    "--model_name_or_path=model",
    "--dataset_name=train.csv",
    "--max_train_steps=2",
    "--checkpointing_steps=1",
    "--output_dir=out",
    "--quiet",
  );
  expect(code).toBe(0);
});

describe("inspect", () => {
  it("says what a model is, and what loading it takes", async () => {
    const stdout = await look("model");
    expect(stdout).toMatch(/^model: a model\n/);
    expect(stdout).toMatch(/│ layers +│ 2, of 2 heads +│/);
    expect(stdout).toMatch(/│ tensors +│ 39, [\d,]+ elements, \d+ KB +│/);
    expect(stdout).toMatch(/│ nf4 +│ --load_in_4bit +│ +\d+ KB │/);
    copyQuantModel("nf4-double", temporary.path("nf4"));
    expect(await look("nf4")).toMatch(
      /^nf4: a quantised model\n[\s\S]*│ held as +│ nf4, blocks of 64, 8-bit scales +│/,
    );
  });

  it("tells memory as the engine will take it", async () => {
    const { model } = await inspect(temporary.path("model"));
    const shape = model?.shape ?? expect.fail("no shape");
    const ways: [LoadOptions, Parameters<typeof frozenBytes>[1]][] = [
      [{}, heldAs("float32")],
      [{ dtype: "float16" }, heldAs("float16")],
      [{ dtype: "bfloat16" }, heldAs("bfloat16")],
      [{ quantize: "int8" }, heldAs("int8")],
      [{ quantize: "nf4" }, heldAs("nf4")],
      [{ quantize: { type: "fp4", blockSize: 128 } }, { ...heldAs("fp4"), blockSize: 128 }],
      [{ quantize: { type: "nf4", doubleQuant: true } }, { ...heldAs("nf4"), doubleQuant: true }],
      [{ quantize: { type: "nf4", outlierFraction: 0.01 } }, { ...heldAs("nf4"), outlierFraction: 0.01 }],
    ];
    for (const [options, held] of ways) {
      await using encoder = await Encoder.load(temporary.path("model"), options);
      const { linear, embeddings, other } = await encoder.memory();
      const [told, taken] = [frozenBytes(shape, held), linear + embeddings + other];
      // A few bytes a matrix to find outliers by; where fp32 is multiplied in pairs, a float for each column of a block
      // of 256 rows and one a matrix: 1.7 % of the tiny model, 0.4 % of a real one.
      const beside = held.format === "float32" ? 0.02 : held.outlierFraction === 0 ? 0 : 0.01;
      const slack = beside * taken;
      expect(Math.abs(told - taken), JSON.stringify(options)).toBeLessThanOrEqual(slack);
    }
  });

  it("says what an adapter and a checkpoint are", async () => {
    const adapter = await look("out");
    expect(adapter).toMatch(/^out: a LoRA adapter\n/);
    expect(adapter).toMatch(/│ modules +│ 6, of rank 8, scale 2 +│/);
    expect(adapter).toMatch(/│ prefixes +│ "query: ", "query: " +│/);
    expect(adapter).toMatch(/│ run +│ train_config\.json repeats it/);
    const checkpoint = await look("out/step_1");
    expect(checkpoint).toMatch(/^out\/step_1: a checkpoint of a run/);
    expect(checkpoint).toMatch(/│ stands at +│ optimiser step 1, 0 epochs ended +│/);
    const json = JSON.parse(await look("out", "--json"));
    expect(json).toMatchObject({ kind: "adapter", adapter: { ranks: [8], scales: [2], layout: "plain" } });
    expect(json.weights).toMatchObject({ tensors: 12, types: [{ dtype: "F32", bytes: json.weights.bytes }] });
  });

  it("lists the tensors of a file", async () => {
    const stdout = await look("out/adapter_model.safetensors", "--tensors");
    expect(stdout).toMatch(/: a file of tensors\n/);
    expect(stdout.match(/lora_[AB]\.weight +│ F32 +│ \[(8, 32|32, 8)\] +│ +1 KB │/g)).toHaveLength(12);
    const json = JSON.parse(await look("out/adapter_model.safetensors", "--tensors", "--json"));
    expect(json.weights.tensors[0]).toMatchObject({ dtype: "F32", bytes: 1024 });
  });

  it("says why this package does not take something, as far as it can be read", async () => {
    cpSync(join(adapters, "first"), temporary.path("dora"), { recursive: true });
    const file = temporary.path("dora", "adapter_config.json");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), fan_in_fan_out: true }));
    expect(await look("dora")).toMatch(
      /not taken by this package \(ADAPTER_UNSUPPORTED\): .*fan_in_fan_out is true/,
    );
    mkdirSync(temporary.path("gpt"));
    writeFileSync(temporary.path("gpt", "config.json"), JSON.stringify({ model_type: "gpt2" }));
    expect(await look("gpt")).toMatch(
      /│ architecture +│ gpt2 +│[\s\S]*\(MODEL_UNSUPPORTED\): .*found "gpt2"/,
    );
    cpSync(temporary.path("model"), temporary.path("cut"), { recursive: true });
    const weights = readFileSync(temporary.path("cut", "model.safetensors"));
    writeFileSync(temporary.path("cut", "model.safetensors"), weights.subarray(0, -4));
    expect(await look("cut")).toMatch(/\(MODEL_CORRUPT\): .*it is cut short/);
  });

  it.each([
    [[], /the path of a folder or a \.safetensors file is required/, 2],
    [["nowhere"], /there is no file nowhere/, 1],
    [["train.csv"], /train\.csv is not a valid safetensors file/, 1],
    [["."], /\. is no model, adapter or checkpoint/, 1],
  ])("refuses %j", async (args, message, expected) => {
    const { stderr, stdout, code } = await run("inspect", ...args);
    expect(stderr).toMatch(message);
    expect([stdout, code]).toEqual(["", expected]);
  });
});
