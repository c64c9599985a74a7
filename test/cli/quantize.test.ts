import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import { type Outcome, runCli } from "../support/cli.js";
import { readNpy } from "../support/npy.js";
import { writePairs } from "../support/pairs-file.js";
import { copyQuantModel, readRaw } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const runHere = (args: string[], env?: NodeJS.ProcessEnv): Promise<Outcome> =>
  runCli(args, { cwd: temporary.path(), ...(env && { env }) });
const MODEL = "--model_name_or_path";

beforeAll(() => {
  const model = writeTinyModel(temporary.path("model"));
  mkdirSync(join(model, "1_Pooling"));
  writeFileSync(join(model, "1_Pooling", "config.json"), '{"pooling_mode_cls_token": true}');
  writeFileSync(join(model, "LICENSE"), "MIT");
  writeFileSync(join(model, "pytorch_model.bin"), "another copy of the weights");
  writePairs(temporary.path("train.csv"), 64);
  writeFileSync(temporary.path("texts.txt"), "how do I learn to swim\nwhat is a good book\n");
});

async function ok(args: string[]): Promise<Outcome> {
  const result = await runHere(args);
  expect(result.code, result.stderr).toBe(0);
  return result;
}

const vectors = (name: string) => readNpy(temporary.path(name));
const encode = async (name: string, flags: string[]) => {
  await ok(["encode", "--input=texts.txt", `--output=${name}`, ...flags]);
  return vectors(name);
};

describe("quantize", () => {
  it("writes a folder that the other commands take, and says what it came to", async () => {
    const { stdout, stderr } = await ok(["quantize", "model", "--out", "nf4", "--quant-block-size", "32"]);
    expect(readdirSync(temporary.path("nf4")).sort()).toEqual([
      "1_Pooling",
      "LICENSE",
      "config.json",
      "model.safetensors",
      "peft_train_quantized.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    // 13 matrices: 2 layers of 4 of 32 x 32 and 2 of 32 x 64, and the pooler.
    expect(stdout).toMatch(/nf4, blocks of 32 .*│ +Before │ +After │/);
    expect(stdout).toMatch(/│ 13 matrices, 17,408 weights │ +68 KB │ +1\d KB │/);
    expect(stdout).toMatch(/│ bytes a weight +│ +4\.000 │ +0\.625 │/);
    expect(stdout).toMatch(/relative error of the weights 0\.0\d+ /);
    expect(stdout).toMatch(/^ {2}npx peft-train eval --model_name_or_path=nf4 /m);
    expect(stderr).toBe("");
    const once = await encode("once.npy", [`${MODEL}=nf4`]);
    const flags = ["--load_in_4bit", "--quant_block_size=32"];
    expect(await encode("loaded.npy", [`${MODEL}=model`, ...flags])).toEqual(once);
    expect(await encode("plain.npy", [`${MODEL}=model`])).not.toEqual(once);
  });

  it("tells machines the same in one line", async () => {
    const { stdout } = await ok([
      "quantize",
      "model",
      "--out=json",
      "--int8",
      "--outlier_threshold=4",
      "--json",
    ]);
    expect(JSON.parse(stdout)).toMatchObject({
      model: "model",
      output: temporary.path("json"),
      storage: { format: "int8", outlier_threshold: 4 },
      report: { tensors: 13, parameters: 17_408, source_bytes: 69_632 },
    });
    expect(JSON.parse(readFileSync(temporary.path("json", "config.json"), "utf8"))).toMatchObject({
      quantization_config: { load_in_8bit: true, llm_int8_threshold: 4 },
    });
  });

  it("leaves out what loading would, and says so", async () => {
    const model = writeTinyModel(temporary.path("deep"));
    const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8"));
    writeFileSync(join(model, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 1 }));
    const { stdout } = await ok(["quantize", "deep", "--out=shallow"]);
    expect(stdout).toMatch(
      /7 matrices, .*^16 tensors of encoder layers beyond .*num_hidden_layers left out$/ms,
    );
    expect(
      readRaw(temporary.path("shallow", "model.safetensors")).has("encoder.layer.1.output.dense.bias"),
    ).toBe(false);
    await encode("shallow.npy", [`${MODEL}=shallow`]);
  });

  for (const [flag, hint] of [
    ["--load_in_8bit", /hint: quantize writes 8 bits a weight with --int8/],
    ["--load-in-4bit", /hint: Leave it out: quantize writes 4 bits a weight/],
  ] as const) {
    it(`says what ${flag} is called here`, async () => {
      const { stderr, code } = await runHere(["quantize", "model", "--out=x", flag]);
      expect(stderr).toMatch(hint);
      expect(code).toBe(2);
    });
  }

  const refusals: [args: string[], code: number, message: RegExp][] = [
    [["quantize", "--out=x"], 2, /the folder of a model is required/],
    [["quantize", "model"], 2, /--out is required/],
    [["quantize", "--model=model"], 2, /--out is required/],
    [
      ["quantize", "model", "--model=other", "--out=x"],
      2,
      /two models: model and --model_name_or_path=other/,
    ],
    [["quantize", "model", "--out="], 2, /--out needs a value/],
    [["quantize", "model", "twice", "--out=x"], 2, /unexpected argument twice/],
    [["quantize", "model", "--out=x", "--bnb_4bit_quant_type=nf5"], 2, /=nf5: expected one of nf4, fp4/],
    [["quantize", "model", "--out=x", "--quant_block_size=100"], 2, /=100: expected a power of two/],
    [["quantize", "model", "--out=x", "--outlier_fraction=0.5"], 2, /=0\.5: expected a number/],
    [
      ["quantize", "model", "--out=x", "--int8", "--quant_block_size=64"],
      2,
      /4-bit weights, and --int8 writes 8/,
    ],
    [["quantize", "model", "--out=x", "--outlier_threshold=6"], 2, /--outlier_threshold is for 8-bit/],
    [["quantize", "nowhere", "--out=x"], 1, /there is no folder nowhere, and HF_HUB_OFFLINE is set/],
    [["quantize", "model", "--out=train.csv"], 1, /train\.csv is a file/],
    [["quantize", "model", "--out=model"], 1, /model is not empty: it holds .* and \d more/],
    [["quantize", "quantised", "--out=x"], 1, /quantised is quantised already, as fp4, blocks of 64/],
    [["quantize", "gptq", "--out=x"], 1, /quantised by gptq; only bitsandbytes is supported/],
  ];
  for (const [args, code, message] of refusals) {
    it(`refuses ${args.slice(1).join(" ")} before libtorch is looked for`, async () => {
      if (args[1] === "quantised") copyQuantModel("fp4", temporary.path("quantised"));
      if (args[1] === "gptq") {
        copyQuantModel("nf4", temporary.path("gptq"), (config) => {
          config.quantization_config = { quant_method: "gptq", bits: 4 };
        });
      }
      const result = await runHere(args, { PEFT_TRAIN_LIBTORCH: "/nonexistent/libtorch" });
      expect(result.stderr).toMatch(message);
      expect(result.stderr.match(/^error: /gm)).toHaveLength(1);
      expect([result.code, result.stdout]).toEqual([code, ""]);
      expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
      expect(readdirSync(temporary.path())).not.toContain("x");
    });
  }
});

describe("training on quantised weights", () => {
  const TRAIN = [
    "--dataset_name=train.csv",
    "--max_train_steps=4",
    "--eval_fraction=0.25",
    "--learning_rate=5e-3",
  ];

  it("shows what memory it takes, learns, and names the flags that belong to the adapter", async () => {
    const flags = ["--load_in_4bit", "--bnb_4bit_use_double_quant", "--outlier_fraction=0.01"];
    const { stdout } = await ok([`${MODEL}=model`, ...TRAIN, ...flags, "--output_dir=out"]);
    expect(stdout).toMatch(/│ Memory +│ +nf4, blocks of 64, 8-bit scales, 1 % kept in float16 │ +float32 │/);
    expect(stdout).toMatch(/│ base model, frozen +│ +\d+ KB │ +\d+ KB │/);
    expect(stdout).toMatch(/│ peak, beside libtorch +│/);
    expect(stdout.indexOf("Memory")).toBeLessThan(stdout.indexOf("ROC AUC before training"));
    expect(stdout).toMatch(
      /eval --model_name_or_path=model --load_in_4bit --bnb_4bit_use_double_quant --outlier_fraction=0\.01 /,
    );
    const record = JSON.parse(readFileSync(temporary.path("out", "peft_train.json"), "utf8"));
    expect(record.training.base_held_as).toMatchObject({ format: "nf4", double_quant: true });
    const log = readFileSync(temporary.path("out", "train_log.jsonl"), "utf8");
    expect(log).toMatch(/^\{"event":"memory","storage":\{"format":"nf4"/m);
    const with4bit = await encode("with.npy", [`${MODEL}=model`, "--adapter=out", ...flags]);
    expect(await encode("without.npy", [`${MODEL}=model`, ...flags, "--prefix=query: "])).not.toEqual(
      with4bit,
    );
  });

  it("and evaluating take adapters of the base in any of its forms, and of no other base", async () => {
    await ok(["quantize", "model", "--out=fp4", "--bnb_4bit_quant_type=fp4", "--quiet"]);
    await ok(["quantize", "model", "--out=int8", "--int8", "--quiet"]);
    await ok([`${MODEL}=fp4`, ...TRAIN, "--output_dir=on-fp4", "--quiet"]);
    await ok([`${MODEL}=model`, ...TRAIN, "--output_dir=on-model", "--quiet"]);
    for (const [model, adapter] of [
      ["fp4", "on-fp4"],
      ["model", "on-fp4"],
      ["fp4", "on-model"],
      ["int8", "on-fp4"],
    ]) {
      const args = [`${MODEL}=${model}`, `--adapter=${adapter}`, "--dataset_name=train.csv", "--json"];
      const { stdout } = await ok(["eval", ...args]);
      expect(JSON.parse(stdout).roc_auc).toBeGreaterThan(0);
    }
    writeTinyModel(temporary.path("other"), { seed: 9 });
    await ok(["quantize", "other", "--out=other-nf4", "--quiet"]);
    const other = await runHere([
      "eval",
      `${MODEL}=other-nf4`,
      "--adapter=on-fp4",
      "--dataset_name=train.csv",
    ]);
    expect(other.stderr).toMatch(/on-fp4 was trained on fp4, whose weights have SHA-256/);
    expect(other.code).toBe(1);
  });

  for (const [flags, message] of [
    [["--load_in_8bit"], /--load_in_8bit: the weights of fp4 are quantised already, as fp4/],
    [
      ["--load_in_4bit", "--bnb_4bit_quant_type=nf4"],
      /--bnb_4bit_quant_type: the weights of fp4 are quantised/,
    ],
    [["--dtype=float16"], /--torch_dtype: the weights of fp4 are quantised already/],
  ] as const) {
    for (const command of [
      ["--dataset_name=train.csv", "--output_dir=x"],
      ["eval", "--dataset_name=train.csv"],
    ]) {
      it(`does not hold a quantised folder otherwise: ${[...command, ...flags].join(" ")}`, async () => {
        const words = command[0] === "eval" ? ["eval"] : [];
        const rest = command.filter((word) => word !== "eval");
        const { stderr, code } = await runHere([...words, `${MODEL}=fp4`, ...rest, ...flags]);
        expect(stderr).toMatch(message);
        expect(stderr).toMatch(/hint: Leave it out/);
        expect(code).toBe(1);
      });
    }
  }
});

describe("--compute int8", () => {
  const flags = [
    "--dataset_name=train.csv",
    "--eval_fraction=0.25",
    "--max_train_steps=12",
    "--learning_rate=5e-3",
  ];
  const weights = (name: string) => readFileSync(temporary.path(name, "adapter_model.safetensors"));

  it("learns as float32 does, and says how weights are held", async () => {
    const { stdout } = await ok([`${MODEL}=model`, "--output_dir=computed", "--compute", "int8", ...flags]);
    expect(stdout).toMatch(/│ int8, outliers from 6 apart, gradient in int8 │/);
    expect(stdout).toMatch(
      /npx peft-train eval --model_name_or_path=model --load_in_8bit --adapter=computed /,
    );
    const plain = await ok([`${MODEL}=model`, "--output_dir=plain", ...flags]);
    const auc = (text: string) => Number([...text.matchAll(/ROC AUC .*?: (0\.\d+)/g)].at(-1)?.[1]);
    expect(auc(stdout)).toBeGreaterThan(auc(plain.stdout) - 0.02);
    expect(weights("computed").equals(weights("plain"))).toBe(false);
  });

  it("takes a model that is held in int8 already, and no other", async () => {
    await ok(["quantize", "model", "--out", "held8", "--int8"]);
    await ok([`${MODEL}=held8`, "--output_dir=on8", "--compute=int8", ...flags]);
    await ok([`${MODEL}=model`, "--output_dir=on-float", "--compute=int8", ...flags]);
    expect(weights("on8").equals(weights("on-float"))).toBe(true);
    const refused = await runHere([`${MODEL}=nf4`, "--output_dir=no", "--compute=int8", ...flags]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/--compute: the weights of nf4 are quantised already, as nf4/);
  });
});

describe("--activation_checkpointing", () => {
  it("under either name writes the same bytes", async () => {
    const flags = ["--dataset_name=train.csv", "--max_train_steps=3", `${MODEL}=model`];
    const bytes: string[] = [];
    for (const [i, flag] of ["", "--activation_checkpointing", "--gradient-checkpointing"].entries()) {
      await ok([...flags, `--output_dir=kept${i}`, ...(flag === "" ? [] : [flag])]);
      bytes.push(readFileSync(temporary.path(`kept${i}`, "adapter_model.safetensors"), "base64"));
    }
    expect(new Set(bytes).size).toBe(1);
  });
});

describe("the library", () => {
  const texts = ["how do I learn to swim", "what is a good book"];

  it("holds weights as it is told, and says so", async () => {
    const model = temporary.path("model");
    const flat = async (options: object): Promise<number[]> => {
      await using encoder = await Encoder.load(model, options);
      return (await encoder.encode(texts)).flatMap((row) => [...row]);
    };
    const float32 = await flat({});
    const cosine = (rows: number[]) => rows.reduce((sum, x, i) => sum + x * (float32[i] as number), 0) / 2;
    const nf4 = await flat({ quantize: "nf4" });
    expect(await flat({ quantize: { type: "nf4", blockSize: 64 } })).toEqual(nf4);
    for (const [options, least] of [
      [{ dtype: "float16" }, 0.99999],
      [{ dtype: "bfloat16" }, 0.999],
      [{ quantize: "int8" }, 0.999],
      [{ quantize: "nf4" }, 0.95],
      [{ quantize: { type: "fp4", outlierFraction: 0.05 } }, 0.95],
    ] as const) {
      const rows = await flat(options);
      expect(rows, JSON.stringify(options)).not.toEqual(float32);
      expect(cosine(rows), JSON.stringify(options)).toBeGreaterThan(least);
    }
    await using encoder = await Encoder.load(model, { quantize: { type: "nf4", doubleQuant: true } });
    expect(encoder.storage).toMatchObject({ format: "nf4", doubleQuant: true, blockSize: 64 });
    const memory = await encoder.memory();
    expect(memory.linear).toBeLessThan(memory.float32Weights / 2);
    expect(memory.adapter + memory.optimizer).toBe(0);
  });
});
