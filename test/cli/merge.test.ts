import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type Outcome, runCli } from "../support/cli.js";
import { readNpy } from "../support/npy.js";
import { writePairs } from "../support/pairs-file.js";
import { readRaw } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

type RawTensors = ReturnType<typeof readRaw>;
const temporary = temporaryFolder();
const runHere = (args: string[]): Promise<Outcome> => runCli(args, { cwd: temporary.path() });

async function ok(...args: string[]): Promise<Outcome> {
  const result = await runHere(args);
  expect(result.stderr.replace(/^warning: .*\n/gm, "")).toBe("");
  expect(result.code).toBe(0);
  return result;
}

async function vectors(model: string, ...more: string[]): Promise<Float32Array> {
  const out = `${model}.npy`;
  await ok(
    "encode",
    `--model_name_or_path=${model}`,
    "--input=texts.txt",
    `--output=${out}`,
    ...more,
    "--quiet",
  );
  return Float32Array.from(readNpy(temporary.path(out)).rows.flatMap((row) => [...row]));
}

function worstCosine(a: Float32Array, b: Float32Array, dim = 32): number {
  const rows = Array.from({ length: a.length / dim }, (_, i) => {
    let sum = 0;
    for (let k = i * dim; k < (i + 1) * dim; k++) sum += (a[k] as number) * (b[k] as number);
    return sum;
  });
  return Math.min(...rows);
}

beforeAll(async () => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 60);
  writeFileSync(
    temporary.path("texts.txt"),
    "how do I learn to swim\nwhat is a good book\nwhere is the sun\n",
  );
  await ok(
    "--model_name_or_path=model",
    "--dataset_name=train.csv",
    "--max_train_steps=6",
    "--learning_rate=0.05",
    "--output_dir=adapter",
    "--lora_target_modules=all-linear",
    "--quiet",
  );
});

/** The adapter as PEFT would have saved it, had it begun with a part of the base. */
function begunWith(init: string): void {
  const folder = temporary.path(init);
  mkdirSync(folder);
  cpSync(temporary.path("adapter", "adapter_model.safetensors"), join(folder, "adapter_model.safetensors"));
  const config = JSON.parse(readFileSync(temporary.path("adapter", "adapter_config.json"), "utf8"));
  writeFileSync(join(folder, "adapter_config.json"), JSON.stringify({ ...config, init_lora_weights: init }));
}

describe("merge", () => {
  it("writes a model that is base and adapter, and says how near", async () => {
    const { stdout } = await ok("merge", "--model=model", "--adapter=adapter", "--out=merged");
    expect(stdout).toMatch(/│ 256 texts +│ +\d\.\de-1\d │ +\d\.\de-1\d │/);
    expect(stdout).toMatch(/13 modules of adapter are in the weights, float32/);
    expect(stdout).toMatch(
      /encode texts\.txt --model_name_or_path=merged --prefix='query: ' --out=vectors\.npy/,
    );
    const base = await vectors("model", "--prefix=query: ");
    const wanted = await vectors("model", "--adapter=adapter");
    const found = await vectors("merged", "--prefix=query: ");
    expect(worstCosine(wanted, base)).toBeLessThan(0.99); // the adapter does something
    // float32 sums in another order.
    expect(Math.max(...found.map((value, i) => Math.abs(value - (wanted[i] as number))))).toBeLessThan(2e-6);
    const record = JSON.parse(readFileSync(temporary.path("merged", "peft_train_merged.json"), "utf8"));
    expect(record).toMatchObject({
      base_model: "model",
      adapter: "adapter",
      question1_prefix: "query: ",
      dtype: "float32",
    });
    expect(record.drift.worst).toBeLessThan(1e-10);
    const config = JSON.parse(readFileSync(temporary.path("merged", "config.json"), "utf8"));
    expect(config).toMatchObject({ model_type: "bert", torch_dtype: "float32", hidden_size: 32 });
  });

  it("holds merged weights as it is told, on the texts that it is given", async () => {
    for (const [dtype, stored, least, most] of [
      ["float16", "F16", 1e-9, 1e-4],
      ["bfloat16", "BF16", 1e-7, 1e-3],
    ] as const) {
      const { stdout } = await ok(
        "merge",
        "--model=model",
        "--adapter=adapter",
        `--out=m-${dtype}`,
        `--dtype=${dtype}`,
        "--probe=texts.txt",
        "--json",
      );
      const { drift, dtype: said } = JSON.parse(stdout);
      expect(said).toBe(dtype);
      expect(drift.texts).toBe(3);
      expect(drift.worst).toBeGreaterThan(least);
      expect(drift.worst).toBeLessThan(most);
      expect(drift.mean).toBeLessThanOrEqual(drift.worst);
      const raw = readRaw(temporary.path(`m-${dtype}`, "model.safetensors"));
      expect(new Set([...raw.values()].map((tensor) => tensor.dtype))).toEqual(new Set([stored]));
    }
  });

  it("refuses what is further away than was allowed, and writes nothing", async () => {
    const { stderr, code } = await runHere([
      "merge",
      "--model=model",
      "--adapter=adapter",
      "--out=far",
      "--dtype=bfloat16",
      "--tolerance=1e-9",
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /merged in bfloat16, the vector of "[^"]+" is \S+ \(1 - cosine\) from that of model with adapter, .* 1e-9 is allowed/,
    );
    expect(stderr).toMatch(/far was not written/);
    const quantised = await runHere([
      "merge",
      "--model=model",
      "--adapter=adapter",
      "--out=far",
      "--dtype=nf4",
      "--tolerance=1e-6",
    ]);
    expect(quantised.stderr).toMatch(/merged in nf4/);
    expect(readdirSync(temporary.path()).filter((name) => name.includes("far"))).toEqual([]);
  });

  it("rounds to 4 and 8 bits where that is asked for, and says what was lost", async () => {
    for (const [dtype, most] of [
      ["nf4", 0.1],
      ["int8", 1e-3],
    ] as const) {
      const { stderr, stdout } = await ok(
        "merge",
        "--model=model",
        "--adapter=adapter",
        `--out=m-${dtype}`,
        `--dtype=${dtype}`,
        "--json",
      );
      expect(stderr).toMatch(
        new RegExp(`^warning: merged weights were rounded to ${dtype}: vectors are .* at worst\\n$`),
      );
      const { drift, quantized } = JSON.parse(stdout);
      expect(drift.worst).toBeGreaterThan(1e-6);
      expect(drift.worst).toBeLessThan(most);
      expect(quantized.tensors).toBe(13);
      const origin = JSON.parse(
        readFileSync(temporary.path(`m-${dtype}`, "peft_train_quantized.json"), "utf8"),
      );
      expect(origin.source_model).toBe("model with adapter");
      expect(existsSync(temporary.path(`m-${dtype}`, "peft_train_merged.json"))).toBe(true);
      await vectors(`m-${dtype}`);
    }
  });

  it("brings a quantised base to float32 first", async () => {
    await ok("quantize", "model", "--out=nf4", "--quiet");
    const { stdout } = await ok("merge", "--model=nf4", "--adapter=adapter", "--out=m-of-nf4", "--json");
    // Beside 4 bits the engine holds word embeddings in float16, and so does what it is held against.
    expect(JSON.parse(stdout).drift.worst).toBeLessThan(1e-6);
    const config = JSON.parse(readFileSync(temporary.path("m-of-nf4", "config.json"), "utf8"));
    expect(config).not.toHaveProperty("quantization_config");
    const wanted = await vectors("nf4", "--adapter=adapter");
    expect(worstCosine(await vectors("m-of-nf4", "--prefix=query: "), wanted)).toBeGreaterThan(1 - 1e-6);
  });

  it("merges DoRA", async () => {
    const flags = ["--dataset_name=train.csv", "--max_train_steps=4", "--learning_rate=0.05", "--quiet"];
    await ok("--model_name_or_path=model", ...flags, "--use_dora", "--output_dir=dora");
    await ok("merge", "--model=model", "--adapter=dora", "--out=m-dora", "--quiet");
    const wanted = await vectors("model", "--adapter=dora");
    expect(worstCosine(await vectors("m-dora", "--prefix=query: "), wanted)).toBeGreaterThan(1 - 1e-6);
  });

  it("puts biases and modules of the adapter's own in place of the base's", async () => {
    const flags = ["--dataset_name=train.csv", "--max_train_steps=4", "--learning_rate=0.05", "--quiet"];
    const own = ["--bias=all", "--modules_to_save=LayerNorm,1.output.dense,word_embeddings,pooler"];
    await ok("--model_name_or_path=model", ...flags, ...own, "--output_dir=own");
    const { stdout } = await ok("merge", "--model=model", "--adapter=own", "--out=m-own");
    // 18 biases, weights of 5 LayerNorms, word embeddings, a matrix of layer 1, and the pooler's.
    const count = 18 + 5 + 1 + 1 + 1;
    expect(stdout).toMatch(
      new RegExp(`6 modules and ${count} parameters of own are in the weights, float32`),
    );
    const wanted = await vectors("model", "--adapter=own");
    const found = await vectors("m-own", "--prefix=query: ");
    expect(Math.max(...found.map((value, i) => Math.abs(value - (wanted[i] as number))))).toBeLessThan(2e-6);
    const [adapter, before, after] = [
      ["own", "adapter_model.safetensors"],
      ["model", "model.safetensors"],
      ["m-own", "model.safetensors"],
    ].map((path) => readRaw(temporary.path(...path))) as [RawTensors, RawTensors, RawTensors];
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    for (const name of ["embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.weight"]) {
      const saved = adapter.get(`base_model.model.${name}`)?.bytes as Buffer;
      expect(after.get(name)?.bytes.equals(saved), name).toBe(true);
      expect(before.get(name)?.bytes.equals(saved), name).toBe(false);
    }
  });

  it.each(["pissa", "olora"])("merges and exports what runs over a part of the base: %s", async (init) => {
    begunWith(init);
    const { stdout } = await ok("merge", "--model=model", `--adapter=${init}`, `--out=m-${init}`, "--json");
    expect(JSON.parse(stdout).drift.worst).toBeLessThan(1e-8);
    const wanted = await vectors("model", `--adapter=${init}`, "--prefix=query: ");
    const plain = await vectors("model", "--adapter=adapter");
    expect(worstCosine(wanted, plain)).toBeLessThan(0.99);
    const args = ["--format=transformers", "--model=model", `--adapter=${init}`, `--out=e-${init}`];
    await ok("export", ...args, "--quiet");
    for (const folder of [`m-${init}`, `e-${init}`]) {
      expect(worstCosine(await vectors(folder, "--prefix=query: "), wanted)).toBeGreaterThan(1 - 1e-6);
    }
  });

  it("keeps the pooling that the adapter was trained with", async () => {
    await ok(
      "--model_name_or_path=model",
      "--dataset_name=train.csv",
      "--max_train_steps=2",
      "--pooling=cls",
      "--output_dir=cls",
      "--quiet",
    );
    await ok("merge", "--model=model", "--adapter=cls", "--out=m-cls", "--quiet");
    const wanted = await vectors("model", "--adapter=cls");
    expect(worstCosine(await vectors("m-cls", "--prefix=query: "), wanted)).toBeGreaterThan(1 - 1e-6);
    const pooling = JSON.parse(readFileSync(temporary.path("m-cls", "1_Pooling", "config.json"), "utf8"));
    expect(pooling).toMatchObject({ pooling_mode_cls_token: true, pooling_mode_mean_tokens: false });
  });

  it.each([
    [["--adapter=adapter", "--out=x"], /--model_name_or_path is required/, 2],
    [["--model=model", "--out=x"], /--adapter is required/, 2],
    [
      ["--model=model", "--adapter=adapter", "--out=x", "--dtype=int4"],
      /dtype: expected one of float32, /,
      2,
    ],
    [
      ["--model=model", "--adapter=adapter", "--out=x", "--tolerance=-1"],
      /tolerance: expected a number of at least 0/,
      2,
    ],
    [["--model=model", "--adapter=adapter", "--out=model"], /model is not empty/, 1],
    [["--model=model", "--adapter=model", "--out=x"], /model has no adapter_config\.json/, 1],
    [["--model=model", "--adapter=adapter", "--out=x", "--probe=none.txt"], /there is no file none\.txt/, 1],
    [["--model=other", "--adapter=adapter", "--out=x"], /adapter was trained on model, whose weights/, 1],
    [
      ["--model=model", "--adapter=pissa_niter_4", "--out=x"],
      /init_lora_weights is "pissa_niter_4", .*\nhint: Convert it with PEFT/,
      1,
    ],
  ])("refuses %j", async (args, message, expected) => {
    if (args.includes("--model=other")) writeTinyModel(temporary.path("other"), { seed: 5 });
    if (args.includes("--adapter=pissa_niter_4")) begunWith("pissa_niter_4");
    const { stderr, stdout, code } = await runHere(["merge", ...args]);
    expect(stderr).toMatch(message);
    expect([stdout, code]).toEqual(["", expected]);
    expect(existsSync(temporary.path("x"))).toBe(false);
  });
});
