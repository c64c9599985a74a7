import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectSameTensors, maxAbs, maxDifference } from "./distance.js";
import { adapterPath, caseTexts, goldenSpec, manifest, pick, trainedPart, withGolden } from "./golden.js";
import { readTensors } from "./safetensors.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "peft-train-adapter-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const whole = { adapter: true, normalize: true, microBatchTokens: 4096 };

describe("adapter files", () => {
  for (const [name, { model, variant }] of Object.entries(manifest.adapters)) {
    it(`written by PEFT come back the same: ${name}`, () =>
      withGolden(model, { adapter: name }, async (encoder) => {
        const saved = join(folder, `${name}.safetensors`);
        await encoder.saveAdapter(saved);
        const [ours, theirs] = [readTensors(saved), readTensors(adapterPath(name))];
        expect(ours.metadata).toEqual({ format: "pt" });
        expectSameTensors(await encoder.adapterWeights(), ours.floats);
        expectSameTensors(trainedPart(name, ours.floats), theirs.floats);
        if (variant?.init === undefined) expect(ours.shapes).toEqual(theirs.shapes);
      }));

    if (variant?.init === undefined) continue;
    it(`are saved as the plain LoRA that PEFT converts them to: ${name}`, async () => {
      const [plain, again] = ["plain", "again"].map((part) =>
        join(folder, `${name}-${part}.safetensors`),
      ) as [string, string];
      const own = await withGolden(model, { adapter: name }, async (encoder) => {
        await encoder.saveAdapter(plain);
        return encoder.encode(caseTexts, whole);
      });
      const theirs = readTensors(adapterPath(`${name}-converted`));
      expect(readTensors(plain).shapes).toEqual(theirs.shapes);
      const modules = goldenSpec(name).modules.map((module) => ({ ...module, rank: 2 * module.rank }));
      await withGolden(model, {}, async (encoder) => {
        for (const path of [plain, adapterPath(`${name}-converted`)]) {
          await encoder.loadAdapter(path, { modules, dropout: 0 });
          expect(maxDifference(await encoder.encode(caseTexts, whole), own), path).toBeLessThan(1e-5);
        }
        // A run that goes on finds what was taken from the base in the file, to the bit.
        await encoder.loadAdapter(plain, goldenSpec(name));
        await encoder.saveAdapter(again);
        expect(readFileSync(again).equals(readFileSync(plain))).toBe(true);
      });
    });
  }

  it("are the same bytes when saved twice, and after a round trip", () =>
    withGolden("plain", { adapter: "all-linear" }, async (encoder) => {
      const paths = ["first", "second", "third"].map((name) => join(folder, `${name}.safetensors`)) as [
        string,
        string,
        string,
      ];
      await encoder.saveAdapter(paths[0]);
      await encoder.saveAdapter(paths[1]);
      await encoder.loadAdapter(paths[0], goldenSpec("all-linear"));
      await encoder.saveAdapter(paths[2]);
      const bytes = paths.map((path) => readFileSync(path));
      expect(bytes[1]?.equals(bytes[0] as Buffer)).toBe(true);
      expect(bytes[2]?.equals(bytes[0] as Buffer)).toBe(true);
    }));

  it("load in the layout of a wrapped model, magnitudes too", () =>
    withGolden("plain", { adapter: "dora" }, async (encoder) => {
      const plain = await encoder.adapterWeights();
      await encoder.loadAdapter(adapterPath("dora-wrapped"), goldenSpec("dora"));
      expectSameTensors(await encoder.adapterWeights(), plain);
    }));

  it("load in the layout of a wrapped model and are saved in the plain one", () =>
    withGolden("plain", { adapter: "fresh" }, async (encoder) => {
      const plain = readTensors(adapterPath("qkv")).floats;
      const wrapped = readTensors(adapterPath("qkv-wrapped")).floats;
      expect(Object.keys(wrapped).every((key) => key.startsWith("base_model.model.model.encoder."))).toBe(
        true,
      );
      await encoder.loadAdapter(adapterPath("qkv-wrapped"), goldenSpec("qkv"));
      expectSameTensors(await encoder.adapterWeights(), plain);
      const saved = join(folder, "wrapped.safetensors");
      await encoder.saveAdapter(saved);
      expectSameTensors(readTensors(saved).floats, plain);
    }));
});

describe("an adapter that does not fit", () => {
  const key = "encoder.layer.1.attention.self.key";
  const narrow = goldenSpec("qkv").modules.map((module) => ({ ...module, rank: 4 }));
  const cases: [string, string, { modules: typeof narrow; dropout: number }, string][] = [
    ["lacks a key", "qkv-missing-key", goldenSpec("qkv"), key],
    ["has a key too many", "qkv-unexpected-key", goldenSpec("qkv"), "encoder.layer.1.output.dense"],
    ["targets other modules", "query-value", goldenSpec("qkv"), "attention.self.key"],
    ["has another rank", "qkv", { modules: narrow, dropout: 0 }, "lora_"],
  ];
  for (const [title, file, spec, named] of cases) {
    it(`is refused and named when it ${title}`, () =>
      withGolden("plain", { adapter: "query-value" }, async (encoder) => {
        const before = await encoder.encode(caseTexts, whole);
        const failure = encoder.loadAdapter(adapterPath(file), spec);
        await expect(failure).rejects.toMatchObject({
          code: "ADAPTER_MISMATCH",
          message: expect.stringContaining(named),
        });
        // What was installed goes on working: a failed load changes nothing.
        expect(maxDifference(await encoder.encode(caseTexts, whole), before)).toBe(0);
      }));
  }

  it("is refused when it is for a model of another width", () =>
    withGolden("prefixed", {}, async (encoder) => {
      const modules = goldenSpec("qkv").modules.filter(({ name }) => !name.includes("layer.2"));
      await expect(encoder.loadAdapter(adapterPath("qkv"), { modules, dropout: 0 })).rejects.toMatchObject({
        code: "ADAPTER_MISMATCH",
      });
    }));

  it("is refused when its file is cut short", () =>
    withGolden("plain", {}, async (encoder) => {
      const bytes = readFileSync(adapterPath("qkv"));
      for (const length of [0, 4, 100, bytes.length - 1]) {
        const path = join(folder, `cut-${length}.safetensors`);
        writeFileSync(path, bytes.subarray(0, length));
        const failure = encoder.loadAdapter(path, goldenSpec("qkv"));
        await expect(failure, `${length} bytes`).rejects.toMatchObject({ name: "PeftTrainError" });
      }
    }));
});

describe("a fresh adapter", () => {
  it("has B zero and A uniform as Kaiming's initialisation with a = sqrt 5 draws it", () =>
    withGolden("plain", {}, async (encoder) => {
      await encoder.createAdapter(goldenSpec("all-linear"), 42);
      const weights = await encoder.adapterWeights();
      const { shapes } = readTensors(adapterPath("all-linear"));
      expect(Object.keys(weights).sort()).toEqual(Object.keys(shapes).sort());
      const scaled: number[] = [];
      for (const [key, values] of Object.entries(weights)) {
        if (key.includes("lora_B")) {
          expect(maxAbs(values), key).toBe(0);
          continue;
        }
        const bound = 1 / Math.sqrt(pick(shapes, key)[1] ?? Number.NaN);
        expect(maxAbs(values), key).toBeLessThanOrEqual(bound);
        expect(maxAbs(values), key).toBeGreaterThan(0.9 * bound);
        scaled.push(...Array.from(values, (value) => value / bound));
      }
      // 2,816 draws of U(-1, 1): the mean has deviation 0.011, the variance (expected 1/3) 0.006; five of each.
      const mean = scaled.reduce((sum, x) => sum + x, 0) / scaled.length;
      const variance = scaled.reduce((sum, x) => sum + (x - mean) ** 2, 0) / scaled.length;
      expect(Math.abs(mean)).toBeLessThan(0.055);
      expect(Math.abs(variance - 1 / 3)).toBeLessThan(0.03);
      expect(new Set(scaled.map((x) => x.toFixed(7))).size).toBeGreaterThan(0.99 * scaled.length);
    }));

  for (const [kind, deviation] of [
    ["gaussian", (rank: number) => ({ A: 1 / rank, B: 0 })],
    // nn.Linear's own beginning, in which B's inputs are the rank.
    ["uniform", (rank: number, input: number) => ({ A: (3 * input) ** -0.5, B: (3 * rank) ** -0.5 })],
    // Half the rank times the variance of an entry of an orthogonal matrix, 1 / rank; times 0.1^2.
    ["orthogonal", () => ({ A: Math.sqrt(0.005), B: Math.sqrt(0.005) })],
  ] as const) {
    it(`has the spread of PEFT's init_lora_weights: ${kind}`, () =>
      withGolden("plain", {}, async (encoder) => {
        const base = await encoder.encode(caseTexts, whole);
        await encoder.createAdapter({ ...goldenSpec("all-linear"), init: { kind } }, 42);
        const weights = await encoder.adapterWeights();
        const { shapes } = readTensors(adapterPath("all-linear"));
        const sums = { A: 0, B: 0 };
        const counts = { A: 0, B: 0 };
        for (const [key, values] of Object.entries(weights)) {
          const matrix = key.includes("lora_A") ? "A" : "B";
          const expected = deviation(4, pick(shapes, key)[1] as number)[matrix];
          counts[matrix] += values.length;
          for (const x of values) sums[matrix] += expected === 0 ? Math.abs(x) : (x / expected) ** 2;
        }
        // 2,816 and more draws of variance 1; those of an orthogonal beginning hang together a little.
        expect(Math.abs(sums.A / counts.A - 1)).toBeLessThan(kind === "orthogonal" ? 0.2 : 0.1);
        if (kind === "gaussian") expect(sums.B).toBe(0);
        else expect(Math.abs(sums.B / counts.B - 1)).toBeLessThan(kind === "orthogonal" ? 0.2 : 0.1);
        const moved = maxDifference(await encoder.encode(caseTexts, whole), base);
        if (kind === "uniform") expect(moved).toBeGreaterThan(0.01);
        else expect(moved).toBeLessThan(1e-5);
        if (kind === "orthogonal")
          expect(maxAbs(Object.values(weights)[0] as Float32Array)).toBeGreaterThan(0);
      }));
  }

  it("changes no embedding, is its seed's own, and trains from zero moments", () =>
    withGolden("plain", { adapter: "qkv" }, async (encoder) => {
      const base = await encoder.encode(caseTexts, { ...whole, adapter: false });
      await encoder.createAdapter(goldenSpec("qkv"), 42);
      expect(maxDifference(await encoder.encode(caseTexts, whole), base)).toBe(0);
      const first = await encoder.adapterWeights();
      await encoder.createAdapter(goldenSpec("qkv"), 43);
      const other = await encoder.adapterWeights();
      await encoder.createAdapter(goldenSpec("qkv"), 42);
      expectSameTensors(await encoder.adapterWeights(), first);
      const key = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight";
      expect(maxDifference(pick(first, key), pick(other, key))).toBeGreaterThan(0.01);
    }));
});
