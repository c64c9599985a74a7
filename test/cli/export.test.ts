import { cpSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { env, pipeline } from "@huggingface/transformers";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { beforeAll, describe, expect, it } from "vitest";
import { Tokenizer } from "../../lib/data/tokenizer.js";
import { type Outcome, runCli } from "../support/cli.js";
import { readNpy } from "../support/npy.js";
import { writePairs } from "../support/pairs-file.js";
import { readRaw } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const TEXTS = [
  "how do I learn to swim",
  "a",
  "what is a good book about the history of the sun and the sea?",
];
const DIMENSION = 32;
/** float32 on both sides, in another order. */
const TOLERANCE = 1e-5;

const runHere = (args: string[], more: NodeJS.ProcessEnv = {}): Promise<Outcome> =>
  runCli(args, { cwd: temporary.path(), env: more });

async function ok(...args: string[]): Promise<Outcome> {
  const result = await runHere(args);
  expect(result.stderr).toBe("");
  expect(result.code).toBe(0);
  return result;
}

/** Nothing in an export needs libtorch. */
async function exported(out: string, ...args: string[]): Promise<string> {
  const result = await runHere(["export", `--out=${out}`, ...args], {
    PEFT_TRAIN_LIBTORCH: "/nonexistent/libtorch",
  });
  expect(result.stderr).toBe("");
  expect(result.code).toBe(0);
  return result.stdout;
}

async function vectors(name: string, ...args: string[]): Promise<Float32Array[]> {
  await ok("encode", "--input=texts.txt", `--output=${name}.npy`, ...args, "--quiet");
  return readNpy(temporary.path(`${name}.npy`)).rows;
}

function worst(found: ArrayLike<number>, wanted: Float32Array[]): number {
  const flat = wanted.flatMap((row) => [...row]);
  expect(found.length).toBe(flat.length);
  return Math.max(...flat.map((value, i) => Math.abs(value - (found[i] as number))));
}

/** The prefixed texts as a padded batch. */
async function padded(folder: string): Promise<Record<string, Tensor>> {
  const tokenizer = await Tokenizer.load(temporary.path(folder));
  const { ids, cuSeqlens } = await tokenizer.encode(
    TEXTS.map((text) => `query: ${text}`),
    64,
  );
  const count = TEXTS.length;
  const lengths = TEXTS.map((_, i) => (cuSeqlens[i + 1] as number) - (cuSeqlens[i] as number));
  const width = Math.max(...lengths);
  const input = new BigInt64Array(count * width);
  const mask = new BigInt64Array(count * width);
  for (const [i, length] of lengths.entries()) {
    for (let j = 0; j < length; j++) {
      input[i * width + j] = BigInt(ids[(cuSeqlens[i] as number) + j] as number);
      mask[i * width + j] = 1n;
    }
  }
  const tensor = (data: BigInt64Array) => new Tensor("int64", data, [count, width]);
  return {
    input_ids: tensor(input),
    attention_mask: tensor(mask),
    token_type_ids: tensor(new BigInt64Array(count * width)),
  };
}

const BASE = "--model_name_or_path=model";
const TRAIN = ["--dataset_name=train.csv", "--max_train_steps=6", "--learning_rate=0.05", "--quiet"];

beforeAll(async () => {
  writeTinyModel(temporary.path("model"));
  // transformers.js pads with what this file names.
  const file = temporary.path("model", "tokenizer_config.json");
  const tokens = { pad_token: "[PAD]", cls_token: "[CLS]", sep_token: "[SEP]", unk_token: "[UNK]" };
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...tokens }));
  writePairs(temporary.path("train.csv"), 60);
  writeFileSync(temporary.path("texts.txt"), `${TEXTS.join("\n")}\n`);
  await ok(BASE, ...TRAIN, "--output_dir=adapter", "--lora_target_modules=all-linear");
});

describe("export --format onnx", () => {
  it("runs in onnxruntime-node, padded or not, and gives vectors of texts where asked", async () => {
    const stdout = await exported(
      "onnx",
      "--format=onnx",
      "--model=model",
      "--adapter=adapter",
      "--sentence_embedding",
    );
    expect(stdout).toMatch(/^onnx: written from model with adapter in 0:0\d; onnx\/model\.onnx has \d+ KB\n/);
    const session = await InferenceSession.create(temporary.path("onnx", "onnx", "model.onnx"));
    expect([...session.inputNames]).toEqual(["input_ids", "attention_mask", "token_type_ids"]);
    expect([...session.outputNames]).toEqual(["last_hidden_state", "sentence_embedding"]);
    const batch = await padded("onnx");
    const { last_hidden_state: hidden, sentence_embedding: found } = await session.run(batch);
    const wanted = await vectors("adapted", BASE, "--adapter=adapter");
    expect(worst(found?.data as Float32Array, wanted)).toBeLessThan(TOLERANCE);
    expect(hidden?.dims).toEqual([TEXTS.length, batch.input_ids?.dims[1], DIMENSION]);
    const base = await vectors("base", BASE, "--prefix=query: ");
    expect(worst(found?.data as Float32Array, base)).toBeGreaterThan(0.01); // the adapter is in it
  });

  it("holds biases and modules of an adapter's own, and so do the folders of transformers and sentence-transformers", async () => {
    const own = ["--bias=all", "--modules_to_save=LayerNorm,output.dense,position_embeddings"];
    await ok(BASE, ...TRAIN, ...own, "--output_dir=own");
    const wanted = await vectors("own", BASE, "--adapter=own");
    await exported("own-onnx", "--format=onnx", "--model=model", "--adapter=own", "--sentence_embedding");
    const session = await InferenceSession.create(temporary.path("own-onnx", "onnx", "model.onnx"));
    const { sentence_embedding: found } = await session.run(await padded("own-onnx"));
    expect(worst(found?.data as Float32Array, wanted)).toBeLessThan(TOLERANCE);
    for (const format of ["transformers", "sentence-transformers"]) {
      await exported(`own-${format}`, `--format=${format}`, "--model=model", "--adapter=own");
      const rows = await vectors(`v-${format}`, `--model_name_or_path=own-${format}`, "--prefix=query: ");
      expect(
        worst(
          rows.flatMap((row) => [...row]),
          wanted,
        ),
      ).toBeLessThan(TOLERANCE);
    }
    const base = await vectors("own-base", BASE, "--prefix=query: ");
    expect(
      worst(
        base.flatMap((row) => [...row]),
        wanted,
      ),
    ).toBeGreaterThan(0.01);
  });

  it("pools and scales as it is told", async () => {
    await exported(
      "cls",
      "--format=onnx",
      "--model=model",
      "--sentence_embedding",
      "--pooling=cls",
      "--no-normalize",
    );
    const session = await InferenceSession.create(temporary.path("cls", "onnx", "model.onnx"));
    const { sentence_embedding: found } = await session.run(await padded("cls"));
    const wanted = await vectors("raw", BASE, "--pooling=cls", "--no-normalize", "--prefix=query: ");
    expect(worst(found?.data as Float32Array, wanted)).toBeLessThan(TOLERANCE);
    expect(Math.hypot(...(wanted[0] as Float32Array))).toBeGreaterThan(1.5);
  });

  it("is what transformers.js's pipeline takes", async () => {
    await exported("js", "--format=onnx", "--model=model", "--adapter=adapter");
    env.allowRemoteModels = false;
    const extract = await pipeline("feature-extraction", temporary.path("js"), { dtype: "fp32" });
    const texts = TEXTS.map((text) => `query: ${text}`);
    const found = await extract(texts, { pooling: "mean", normalize: true });
    expect(found.dims).toEqual([TEXTS.length, DIMENSION]);
    const wanted = await vectors("again", BASE, "--adapter=adapter");
    expect(worst(found.data as Float32Array, wanted)).toBeLessThan(TOLERANCE);
  });

  it("refuses a model that does not fit into one file, before it writes one", async () => {
    // As many words as make the limit, in a file without a byte of theirs on the disk.
    const folder = writeTinyModel(temporary.path("huge"));
    const file = temporary.path("huge", "model.safetensors");
    const words = 2 ** 24;
    const header: Record<string, { shape: number[]; data_offsets: [number, number] }> = {};
    let position = 0;
    for (const [name, { dtype, shape, bytes }] of readRaw(file)) {
      const wide = name === "embeddings.word_embeddings.weight";
      const size = wide ? words * DIMENSION * 4 : bytes.length;
      const entry = {
        dtype,
        shape: wide ? [words, DIMENSION] : shape,
        data_offsets: [position, position + size],
      };
      header[name] = entry as never;
      position += size;
    }
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    writeFileSync(file, Buffer.concat([length, json]));
    truncateSync(file, 8 + json.length + position);
    const config = JSON.parse(readFileSync(temporary.path("huge", "config.json"), "utf8"));
    writeFileSync(temporary.path("huge", "config.json"), JSON.stringify({ ...config, vocab_size: words }));
    const { stderr, code } = await runHere([
      "export",
      "--format=onnx",
      `--model=${folder}`,
      "--out=too-large",
    ]);
    expect(stderr).toMatch(/would be 2147\d{6} bytes as one ONNX file, which can hold 2147483647/);
    expect(code).toBe(1);
    expect(readdirSync(temporary.path()).filter((name) => name.includes("too-large"))).toEqual([]);
  });

  it("takes quantised models, as the numbers that their codes stand for", async () => {
    await ok("quantize", "model", "--out=int8", "--int8", "--outlier_threshold=0", "--quiet");
    await exported("onnx8", "--format=onnx", "--model=int8", "--sentence_embedding");
    const session = await InferenceSession.create(temporary.path("onnx8", "onnx", "model.onnx"));
    const { sentence_embedding: found } = await session.run(await padded("onnx8"));
    const wanted = await vectors("held8", "--model_name_or_path=int8", "--prefix=query: ");
    // LLM.int8() rounds what goes into a matrix too: to 1 part in 127 of a row's largest.
    expect(worst(found?.data as Float32Array, wanted)).toBeLessThan(0.02);
  });
});

describe("export --format sentence-transformers", () => {
  const read = (...names: string[]) => JSON.parse(readFileSync(temporary.path(...names), "utf8"));

  it("writes what SentenceTransformer reads, and what this package reads the same vectors from", async () => {
    const stdout = await exported(
      "st",
      "--format=sentence-transformers",
      "--model=model",
      "--adapter=adapter",
    );
    expect(stdout).toMatch(/^SentenceTransformer\("st"\)\.encode\(texts\)$/m);
    expect(read("st", "modules.json").map((module: { path: string }) => module.path)).toEqual([
      "",
      "1_Pooling",
      "2_Normalize",
    ]);
    expect(read("st", "config_sentence_transformers.json")).toMatchObject({
      prompts: { query: "query: ", document: "query: " },
      default_prompt_name: "query",
    });
    expect(read("st", "sentence_bert_config.json").max_seq_length).toBe(64);
    const wanted = await vectors("adapted-st", BASE, "--adapter=adapter");
    const found = await vectors("st", "--model_name_or_path=st");
    expect(
      worst(
        found.flatMap((row) => [...row]),
        wanted,
      ),
    ).toBeLessThan(TOLERANCE);
  });

  it("says prompts, pooling, length and normalisation as it is told", async () => {
    await exported(
      "st2",
      "--format=sentence-transformers",
      "--model=model",
      "--query_prefix=ask: ",
      "--document_prefix=",
      "--pooling=cls",
      "--max_length=32",
      "--no-normalize",
      "--dtype=float16",
    );
    expect(readdirSync(temporary.path("st2"))).not.toContain("2_Normalize");
    expect(read("st2", "config_sentence_transformers.json").prompts).toEqual({
      query: "ask: ",
      document: "",
    });
    expect(read("st2", "1_Pooling", "config.json").pooling_mode_cls_token).toBe(true);
    expect(read("st2", "sentence_bert_config.json").max_seq_length).toBe(32);
    expect(readRaw(temporary.path("st2", "model.safetensors")).get("pooler.dense.weight")?.dtype).toBe("F16");
  });

  it("writes a length that every command takes from the folder again, unless it is said", async () => {
    await exported("short", "--format=sentence-transformers", "--model=model", "--max_length=6");
    const short = await vectors("short-vectors", "--model_name_or_path=short");
    expect(short).toEqual(await vectors("cut", BASE, "--max_length=6"));
    const long = await vectors("long", "--model_name_or_path=short", "--max_length=64");
    expect(long).toEqual(await vectors("whole", BASE));
    expect(long).not.toEqual(short);
    // An adapter says its own.
    cpSync(temporary.path("model"), temporary.path("cut-model"), { recursive: true });
    cpSync(
      temporary.path("short", "sentence_bert_config.json"),
      temporary.path("cut-model", "sentence_bert_config.json"),
    );
    const adapted = await vectors("short-adapted", "--model_name_or_path=cut-model", "--adapter=adapter");
    expect(adapted).toEqual(await vectors("long-adapted", BASE, "--adapter=adapter"));
    const auc = async (...args: string[]) =>
      JSON.parse((await ok("eval", "--dataset_name=train.csv", "--json", ...args)).stdout).loss;
    expect(await auc("--model=short")).toBe(await auc(BASE, "--max_length=6"));
    expect(await auc("--model=short")).not.toBe(await auc(BASE));
    await exported("again", "--format=sentence-transformers", "--model=short");
    expect(read("again", "sentence_bert_config.json").max_seq_length).toBe(6);
  });

  it("keeps the prompts of a model that nobody says anything of", async () => {
    const prompts = { prompts: { search: "find: " }, default_prompt_name: null };
    writeTinyModel(temporary.path("prompted"));
    writeFileSync(temporary.path("prompted", "config_sentence_transformers.json"), JSON.stringify(prompts));
    await exported("st3", "--format=sentence-transformers", "--model=prompted");
    expect(read("st3", "config_sentence_transformers.json")).toEqual(prompts);
  });
});

describe("export --format transformers", () => {
  it("writes encoder and tokenizer alone", async () => {
    await exported("plain", "--format=transformers", "--model=st", "--json");
    expect(readdirSync(temporary.path("plain")).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const before = readRaw(temporary.path("st", "model.safetensors"));
    for (const [name, { bytes }] of readRaw(temporary.path("plain", "model.safetensors"))) {
      expect(bytes.equals(before.get(name)?.bytes as Buffer), name).toBe(true);
    }
  });

  it.each([
    [["--model=model", "--out=x"], /--format is required/],
    [
      ["--format=gguf", "--model=model", "--out=x"],
      /format: expected one of transformers, sentence-transformers, onnx/,
    ],
    [["--format=onnx", "--model=model", "--out=x", "--dtype=float16"], /ONNX models are written in float32/],
    [
      ["--format=onnx", "--model=model", "--out=x", "--pooling=cls"],
      /pooling says nothing to the format onnx without/,
    ],
    [
      ["--format=transformers", "--model=model", "--out=x", "--max_length=9"],
      /max_length says nothing to the format/,
    ],
  ])("refuses %j", async (args, message) => {
    const { stderr, stdout, code } = await runHere(["export", ...args]);
    expect(stderr).toMatch(message);
    expect([stdout, code]).toEqual(["", 2]);
    expect(existsSync(temporary.path("x"))).toBe(false);
  });
});
