import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { compareAdapters, diffAdapters } from "../../lib/adapter/difference.js";
import { type LoraFactors, product } from "../../lib/adapter/factors.js";
import { readStoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { goldenPath } from "../parity/golden.js";
import { type Outcome, runCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const adapters = fileURLToPath(new URL("../fixtures/combine/adapters", import.meta.url));
const run = (...args: string[]): Promise<Outcome> => runCli(args, { cwd: temporary.path() });

beforeAll(async () => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 60);
  writeFileSync(temporary.path("texts.txt"), "a b c\nwhat is a good book\n");
  for (const seed of [1, 2]) {
    const { code } = await run(
      "--model_name_or_path=model",
      "--dataset_name=train.csv",
      "--max_train_steps=3",
      "--learning_rate=0.05",
      `--seed=${seed}`,
      `--output_dir=out${seed}`,
      "--quiet",
    );
    expect(code).toBe(0);
  }
});

it("the cosine of an adapter and itself is 1, whatever its sums are rounded to", async () => {
  const names = ["first", "second", "third"].map((name) => join(adapters, name));
  const both = [...names, ...["adapters/dora", "adapters/lora-bias", "own/bias-all"].map(goldenPath)];
  for (const name of both) {
    const { cosine, modules, parameters } = await diffAdapters(name, name);
    for (const one of [{ cosine }, ...modules, ...parameters]) {
      if (one.cosine === 0) continue; // of nothing
      expect(one.cosine).toBeLessThanOrEqual(1);
      expect(one.cosine).toBeCloseTo(1, 12);
    }
  }
});

it("norms, differences and cosines are those of the products themselves", async () => {
  const [a, b] = await Promise.all(
    ["first", "second"].map((name) => readStoredAdapter(join(adapters, name))),
  );
  if (a === undefined || b === undefined) return expect.fail();
  const { modules, settings, ...whole } = compareAdapters(a, b);
  expect(modules.map(({ name }) => name)).toEqual([...b.modules.keys()].sort());
  const flat = (adapter: typeof a): number[] =>
    modules.flatMap(({ name }) => {
      const { inputs, outputs } = b.modules.get(name) as never as { inputs: number; outputs: number };
      const factors = adapter.modules.get(name);
      return [...(factors ? product(factors, factors.scale) : new Float64Array(inputs * outputs))];
    });
  const [x, y] = [flat(a), flat(b)];
  const norm = (values: number[]) => Math.hypot(...values);
  expect(whole.normA).toBeCloseTo(norm(x), 10);
  expect(whole.normB).toBeCloseTo(norm(y), 10);
  const difference = norm(x.map((value, i) => value - (y[i] as number)));
  expect(whole.relativeDifference).toBeCloseTo(difference / Math.max(norm(x), norm(y)), 10);
  const dot = x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
  expect(whole.cosine).toBeCloseTo(dot / (norm(x) * norm(y)), 10);
  const alone = modules.find(({ name }) => name.endsWith("0.intermediate.dense"));
  expect(alone).toMatchObject({ rankA: undefined, rankB: 4, normA: 0, relativeDifference: 1, cosine: 0 });
  expect(settings).toEqual([
    ["loraAlpha", 8, 2],
    ["targetModules", ["query", "value"], ["intermediate.dense", "query", "value"]],
  ]);
});

describe("what is beside A and B", () => {
  const read = (name: string) => readStoredAdapter(goldenPath(name));

  it("are magnitudes and biases on B, times their scale", async () => {
    for (const [name, part, suffix] of [
      ["adapters/dora", "magnitude", "lora_magnitude_vector"],
      ["adapters/lora-bias", "bias", "lora_B.bias"],
    ] as const) {
      const [a, b] = [await read(name), await read(name)];
      const key = "encoder.layer.1.attention.self.value";
      const [x, y] = [a, b].map((one) => one.modules.get(key) as LoraFactors) as [LoraFactors, LoraFactors];
      const values = x[part] as Float64Array;
      y[part] = values.map((value, i) => value + (i === 3 ? 0.5 : 0));
      const scale = part === "bias" ? x.scale : 1;
      const { parameters } = compareAdapters(a, b);
      expect(parameters.map((one) => one.name).sort()).toEqual(
        [...a.modules.keys()].map((module) => `${module}.${suffix}`).sort(),
      );
      const [normA, normB] = [x, y].map((one) => scale * Math.hypot(...(one[part] as Float64Array))) as [
        number,
        number,
      ];
      const found = parameters.find((one) => one.name === `${key}.${suffix}`);
      expect(found?.normA).toBeCloseTo(normA, 10);
      expect(found?.normB).toBeCloseTo(normB, 10);
      expect(found?.relativeDifference).toBeCloseTo((0.5 * scale) / Math.max(normA, normB), 10);
      const others = parameters.filter((one) => one !== found);
      expect(
        others.every((one) => one.relativeDifference === 0 && Math.abs((one.cosine ?? 0) - 1) < 1e-12),
      ).toBe(true);
    }
  });

  it("are parameters of their own, by the names that they have in the base", async () => {
    const { parameters } = compareAdapters(await read("own/bias-all"), await read("own/norms"));
    const both = parameters.find(({ name }) => name === "embeddings.LayerNorm.bias");
    expect(both).toMatchObject({ normA: expect.any(Number), cosine: expect.any(Number) });
    expect(both?.relativeDifference).toBeGreaterThan(0.01);
    const wrapped = parameters.find(({ name }) => name === "encoder.layer.0.attention.self.query.bias");
    expect(wrapped).toMatchObject({ normA: expect.any(Number), normB: undefined, cosine: undefined });
    const args = ["diff", goldenPath("own/bias-all"), goldenPath("own/norms")];
    const { stdout, stderr, code } = await run(...args);
    expect([stderr, code]).toEqual(["", 0]);
    expect(stdout).toMatch(/│ encoder\.layer\.0\.attention\.self\.query\.bias +│ +\d\.\d+ │ +- │ +- │ +- │/);
    expect(stdout).toMatch(/│ embeddings\.LayerNorm\.bias +│ +\d\.\d+ │ +\d\.\d+ │ +\d\.\d+ │ +\d\.\d{4} │/);
    const json = JSON.parse((await run(...args, "--json")).stdout);
    expect(json.parameters).toHaveLength(parameters.length);
  });

  it("over a part of the base, it is refused with the command that helps", async () => {
    const { stderr, code } = await run("diff", goldenPath("adapters/pissa"), goldenPath("adapters/pissa"));
    expect(stderr).toMatch(/init_lora_weights is "pissa", .*\nhint: npx peft-train convert/);
    expect(code).toBe(1);
  });
});

it("diff shows them as a table, and with a model how far texts move", async () => {
  const { stdout, stderr, code } = await run("diff", "out1", "out2", "--model=model", "--probe=texts.txt");
  expect([stderr, code]).toEqual(["", 0]);
  expect(stdout.match(/│ encoder\.layer\.[01]\.attention\.self\.(query|key|value) +│ +8 │/g)).toHaveLength(6);
  expect(stdout).toMatch(/│ all +│ +│ +\d\.\d+ │ +\d\.\d+ │ +\d\.\d+ │ +-?\d\.\d{4} │/);
  expect(stdout).toMatch(/their settings are the same/);
  expect(stdout).toMatch(/│ 1 - cosine, 2 texts │/);
  const json = await run("diff", "out1", "out1", "--model=model", "--probe=texts.txt", "--json");
  const same = JSON.parse(json.stdout);
  expect(same).toMatchObject({
    relative_difference: 0,
    settings: [],
    drift: { between: { mean: 0, worst: 0, texts: 2 } },
  });
  expect(same.cosine).toBeCloseTo(1, 12);
  expect(same.drift.a.worst).toBeGreaterThan(1e-4);
  expect(same.drift.a).toEqual(same.drift.b);
});

it("diff names the settings that differ", async () => {
  cpSync(temporary.path("out1"), temporary.path("changed"), { recursive: true });
  const file = temporary.path("changed", "peft_train.json");
  writeFileSync(file, readFileSync(file, "utf8").replace('"max_length": 64', '"max_length": 32'));
  const { stdout } = await run("diff", "out1", "changed");
  expect(stdout).toMatch(/│ maxLength +│ 64 +│ 32 +│/);
  expect(stdout).not.toMatch(/--json/);
});

it("diff cuts a long setting, and says where it stands whole", async () => {
  expect((await run("convert", "out1", "--layout=wrapped", "--out=wrapped")).code).toBe(0);
  const { stdout } = await run("diff", "out1", "wrapped");
  expect(stdout).toMatch(/│ targetModules +│ \["key","query","value"\] +│ \["[^│]{45}… │/);
  expect(stdout).toMatch(/--json has the settings in full/);
  const { settings } = JSON.parse((await run("diff", "out1", "wrapped", "--json")).stdout);
  expect(settings.find(([name]: [string]) => name === "targetModules")[2]).toHaveLength(6);
});

it.each([
  [["out1"], /expected the folders of two adapters, found 1/, 2],
  [["out1", "out2", "--probe=texts.txt"], /--probe needs the base model/, 2],
  [["out1", "nowhere"], /there is no folder nowhere/, 1],
  [["out1", "model"], /model has no adapter_config\.json/, 1],
])("diff refuses %j", async (args, message, expected) => {
  const { stderr, stdout, code } = await run("diff", ...args);
  expect(stderr).toMatch(message);
  expect([stdout, code]).toEqual(["", expected]);
});
