import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { distance, type LoraFactors } from "../../lib/adapter/factors.js";
import { readStoredAdapter, type StoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { Encoder } from "../../lib/encoder.js";
import { ModelWeights } from "../../lib/model/model-weights.js";
import { goldenPath, manifest } from "../parity/golden.js";
import { type Outcome, runCli } from "../support/cli.js";
import { copyQuantModel, readRaw } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const run = (...args: string[]): Promise<Outcome> =>
  runCli(args, { cwd: temporary.path(), env: { PEFT_TRAIN_LIBTORCH: "/nonexistent/libtorch" } });

async function converted(source: string, out: string, ...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await run("convert", source, `--out=${out}`, ...args);
  expect([stderr, code]).toEqual(["", 0]);
  return stdout;
}

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
});

/** What is not written out module by module where names change. */
function settings({ config }: StoredAdapter): unknown {
  const { r, loraDropout, useRslora, useDora, loraBias, bias, modulesToSave } = config.lora;
  const saved = modulesToSave && [...modulesToSave].sort();
  return { r, loraDropout, useRslora, useDora, loraBias, bias, saved };
}

/** Of the products B A. */
function relative(a: LoraFactors, b: LoraFactors): number {
  const { difference, normX } = distance(a, b);
  return difference / normX;
}

describe("convert of an adapter", () => {
  const adapter = (name: string) => goldenPath(`adapters/${name}`);

  it("brings the names of a wrapped model to PEFT's own, and says so", async () => {
    const stdout = await converted(adapter("qkv-wrapped"), "plain");
    expect(stdout).toMatch(/^plain: an adapter, wrapped names, F32 in .*, now plain names, float32\n$/);
    const plain = readRaw(`${adapter("qkv")}/adapter_model.safetensors`);
    const found = readRaw(temporary.path("plain", "adapter_model.safetensors"));
    expect([...found.keys()].sort()).toEqual([...plain.keys()].sort());
    for (const [key, { bytes }] of found)
      expect(bytes.equals(plain.get(key)?.bytes as Buffer), key).toBe(true);
  });

  // Patterns, regular expressions and layers_to_transform are written for one set of names.
  const own = ["bias-all", "lora-only", "norms-and-biases", "embeddings", "whole-layer"];
  const cases = [
    ...Object.keys(manifest.adapters).flatMap((name) =>
      /^(pissa|olora)$/.test(name) ? [] : `adapters/${name}`,
    ),
    ...own.map((name) => `own/${name}`),
  ];
  for (const path of cases) {
    it(`there and back is the same adapter: ${path}`, async () => {
      const name = path.replace("/", "-");
      await converted(goldenPath(path), `w-${name}`, "--layout=wrapped");
      await converted(temporary.path(`w-${name}`), `p-${name}`, "--quiet");
      const [first, ...others] = await Promise.all(
        [goldenPath(path), temporary.path(`w-${name}`), temporary.path(`p-${name}`)].map((one) =>
          readStoredAdapter(one),
        ),
      );
      const before = readRaw(`${goldenPath(path)}/adapter_model.safetensors`);
      const after = readRaw(temporary.path(`p-${name}`, "adapter_model.safetensors"));
      // PEFT writes what its wrappers hold of a LayerNorm twice more with bias "all".
      const wanted = [...before].filter(([key]) => !/\.(original_module|modules_to_save)\.bias$/.test(key));
      expect([...after.keys()].sort()).toEqual(wanted.map(([key]) => key).sort());
      for (const [key, { bytes }] of wanted)
        expect(bytes.equals(after.get(key)?.bytes as Buffer), key).toBe(true);
      expect(others.map(({ layout }) => layout)).toEqual(["wrapped", "plain"]);
      for (const other of others) {
        expect([...other.modules.keys()].sort()).toEqual([...(first?.modules.keys() ?? [])].sort());
        for (const [module, wanted] of first?.modules ?? []) {
          const found = other.modules.get(module);
          expect(found).toMatchObject({ rank: wanted.rank });
          expect(found?.scale).toBeCloseTo(wanted.scale, 12);
          for (const part of ["a", "b", "magnitude", "bias"] as const) {
            expect(found?.[part], part).toEqual(wanted[part]);
          }
        }
        expect(other.own).toEqual(first?.own);
        expect(settings(other)).toEqual(settings(first as StoredAdapter));
      }
    });
  }

  it("holds numbers as it is told, and the engine loads them", async () => {
    for (const [dtype, stored] of [
      ["float16", "F16"],
      ["bfloat16", "BF16"],
    ] as const) {
      const { model } = manifest.adapters["all-linear"] as { model: string };
      const vectors: Float32Array[] = [];
      await converted(adapter("all-linear"), dtype, `--dtype=${dtype}`);
      const raw = readRaw(temporary.path(dtype, "adapter_model.safetensors"));
      expect(new Set([...raw.values()].map((tensor) => tensor.dtype))).toEqual(new Set([stored]));
      for (const one of [adapter("all-linear"), temporary.path(dtype)]) {
        const folder = writeTinyModel(temporary.path(`base-${dtype}`), {
          config: { hidden_size: 32, num_hidden_layers: 3, intermediate_size: 96, num_attention_heads: 4 },
        });
        expect(model).toBe("plain");
        await using encoder = await Encoder.load(folder, { adapter: one });
        vectors.push(...(await encoder.encode(["how do I learn to swim"])));
      }
      const [x, y] = vectors as [Float32Array, Float32Array];
      const cosine = x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
      expect(cosine).toBeGreaterThan(dtype === "float16" ? 1 - 1e-6 : 1 - 1e-4);
      expect(x).not.toEqual(y);
    }
  });
});

describe("convert of numbers that the type does not hold", () => {
  it.each([
    ["float16", 65_519, true],
    ["float16", 65_520, false],
    ["bfloat16", 3.396e38, true],
    ["bfloat16", 3.4e38, false],
  ] as const)("%s and %d: %s", async (dtype, value, fits) => {
    const [source, out] = [`large-${dtype}-${value}`, `out-${dtype}-${value}`].map((name) =>
      temporary.path(name),
    ) as [string, string];
    cpSync(goldenPath("adapters/dora"), source, { recursive: true });
    const file = path.join(source, "adapter_model.safetensors");
    const bytes = readFileSync(file);
    bytes.writeFloatLE(value, bytes.length - 4);
    writeFileSync(file, bytes);
    const { stderr, code } = await run("convert", source, `--out=${out}`, `--dtype=${dtype}`);
    expect(stderr).toMatch(fits ? /^$/ : new RegExp(`of the adapter would hold NaN or infinity in ${dtype}`));
    expect([code, existsSync(out)]).toEqual(fits ? [0, true] : [1, false]);
  });
});

describe("convert of an adapter over a part of its base", () => {
  it("makes plain LoRA of it, which gives the same vectors", async () => {
    cpSync(goldenPath("models/plain"), temporary.path("golden"), { recursive: true });
    cpSync(temporary.path("model", "tokenizer.json"), temporary.path("golden", "tokenizer.json"));
    const source = goldenPath("adapters/pissa");
    const refused = await run("convert", source, "--out=no");
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(
      /init_lora_weights is "pissa", .*\nhint: npx peft-train convert ADAPTER --model BASE --out DIR/,
    );
    for (const layout of ["plain", "wrapped"]) {
      const args = ["convert", source, "--model=golden", `--out=pissa-${layout}`, `--layout=${layout}`];
      const { stdout, stderr, code } = await runCli(args, { cwd: temporary.path() });
      expect([stderr, code]).toEqual(["", 0]);
      expect(stdout).toMatch(/now (plain|wrapped) names, float32\n$/);
      const { config, modules } = await readStoredAdapter(temporary.path(`pissa-${layout}`));
      expect(config.lora).toMatchObject({ r: 8, loraAlpha: 12, initLoraWeights: true });
      const theirs = await readStoredAdapter(`${source}-converted`);
      for (const [name, { rank, scale, a }] of theirs.modules) {
        expect(modules.get(name)).toMatchObject({ rank, scale });
        // What was trained; the other half are singular vectors, free in sign.
        expect(modules.get(name)?.a.subarray(0, a.length / 2)).toEqual(a.subarray(0, a.length / 2));
        expect(
          relative(modules.get(name) as LoraFactors, theirs.modules.get(name) as LoraFactors),
        ).toBeLessThan(1e-5);
      }
    }
  });
});

describe("convert of a model", () => {
  it("brings 4 and 8 bits to the numbers that their codes stand for", async () => {
    for (const name of ["nf4", "nf4-double", "fp4", "int8"]) {
      copyQuantModel(name, temporary.path(name));
      expect(await converted(name, `plain-${name}`)).toMatch(/a model, (nf4|fp4|int8), .* now float32\n$/);
      const config = JSON.parse(readFileSync(temporary.path(`plain-${name}`, "config.json"), "utf8"));
      expect(config).not.toHaveProperty("quantization_config");
      await using from = await ModelWeights.open(temporary.path(name, "model.safetensors"));
      await using to = await ModelWeights.open(temporary.path(`plain-${name}`, "model.safetensors"));
      expect(to.names).toEqual(from.names);
      for (const key of to.names) {
        expect(to.isQuantized(key)).toBe(false);
        expect(await to.floats(key)).toEqual(await from.floats(key));
      }
    }
  });

  it("brings it to 16 bits and back without another loss", async () => {
    await converted("model", "half", "--dtype=float16", "--json");
    await converted("half", "again");
    await converted("again", "half2", "--dtype=float16");
    const [half, half2] = ["half", "half2"].map((name) =>
      readFileSync(temporary.path(name, "model.safetensors")),
    );
    expect(half?.equals(half2 as Buffer)).toBe(true);
    expect(half?.length).toBeLessThan(
      readFileSync(temporary.path("model", "model.safetensors")).length * 0.6,
    );
  });

  it.each([
    [["--out=x"], /the folder of an adapter or a model is required/, 2],
    [["model"], /--out is required/, 2],
    [
      ["model", "--out=x", "--dtype=nf4"],
      /dtype: expected one of float32, .*\nhint: npx peft-train quantize/,
      2,
    ],
    [["model", "--out=x", "--layout=wrapped"], /layout is for adapters, and model is none/, 2],
    [["model", "--out=x", "--model=model"], /model is for adapters, and model is none/, 2],
    [["model", "--out=model"], /model is not empty/, 1],
  ])("refuses %j", async (args, message, expected) => {
    const { stderr, stdout, code } = await run("convert", ...args);
    expect(stderr).toMatch(message);
    expect([stdout, code]).toEqual(["", expected]);
    expect(existsSync(temporary.path("x"))).toBe(false);
  });
});
