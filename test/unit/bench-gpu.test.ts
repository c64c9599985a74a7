import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readPairs } from "../../bench/data.mjs";
import { generatedPairs, generatedQuestion, wholeWords } from "../../bench/generated.mjs";
import { gpuMarkdown } from "../../bench/gpu-report.mjs";
import { prepare } from "../../bench/gpu-times.mjs";
import { Encoder } from "../../lib/index.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "peft-train-bench-gpu-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("generated questions are as long as Quora's, and the same each time", () => {
  const words = wholeWords(join(root, "data/encoder"));
  const lengths = Array.from({ length: 5000 }, (_, i) => generatedQuestion(words, i).split(" ").length);
  expect(Math.min(...lengths)).toBe(8);
  expect(Math.max(...lengths)).toBe(39);
  expect(lengths.reduce((sum, length) => sum + length) / lengths.length).toBeCloseTo(20.3, 0);
  expect([...generatedPairs(3, words)]).toEqual([...generatedPairs(3, words)]);
});

test("without a model and data the benchmark makes both, and the engine takes them", async () => {
  const { model, data } = prepare({ quick: true, batch: 4 }, root, folder);
  expect(data.said).toBe("80 generated pairs");
  expect(readPairs(data.file, 0)).toHaveLength(80);
  const weights = join(model.folder, "model.safetensors");
  const length = Buffer.alloc(8);
  const file = openSync(weights, "r");
  readSync(file, length, 0, 8, 0);
  closeSync(file);
  const parameters = (statSync(weights).size - 8 - Number(length.readBigUInt64LE())) / 4;
  expect(parameters).toBe(33_212_160); // of intfloat/e5-small-v2 without its pooler
  const encoder = await Encoder.load(model.folder);
  const [vector] = await encoder.encode(["words of a text"]);
  expect(vector).toHaveLength(384);
  expect((vector as Float32Array).every(Number.isFinite)).toBe(true);
  await encoder.close();
});

test("what is encoded are the questions of --test, and a file without any is found at once", () => {
  const options = { quick: true, batch: 1, model: join(root, "data/encoder") };
  const test = join(root, "data/pairs/test.csv");
  const texts = JSON.parse(readFileSync(prepare({ ...options, test }, root, folder).texts, "utf8"));
  const [first] = readPairs(test, 1);
  expect(texts).toHaveLength(2000);
  expect(texts.slice(0, 2)).toEqual([first.question1, first.question2]);
  const empty = join(folder, "empty.csv");
  writeFileSync(empty, "question1,question2,is_duplicate\n");
  expect(() => prepare({ ...options, test: empty }, root, folder)).toThrow(`--test: no pairs in ${empty}`);
});

test("the report names what was measured and leaves out what was not", () => {
  const text = gpuMarkdown({
    date: "2026-01-02",
    gpu: "GPU 0: some",
    machine: {
      cpu: "cpu",
      physicalCores: 4,
      system: "Linux",
      package: "1.0.0",
      node: "v20",
      libtorch: "2.13.0",
    },
    data: "73011 generated pairs",
    model: "a model",
    options: { quick: false, epochs: 3, batch: 64, max_length: 70, seed: 42 },
    sections: {
      kernels: {
        computeCapability: 90,
        readySeconds: 3.5,
        rows: [
          { name: "attention", shape: "12 heads", microseconds: 10, aten: 1000 },
          { name: "fp16 product", shape: "1x384 by 1536", aten: 5 },
        ],
      },
      training: [{ name: "fp32", seconds: 100, pairs: 219_033, pairsPerSecond: 2300, firstStep: 2.5 }],
      encoding: [{ name: "fp32", texts: 20_000, textsPerSecond: 9000, milliseconds: 1.5 }],
    },
  });
  expect(text).toContain("GPU 0: some (compute capability 90)");
  expect(text).toContain("| attention | 12 heads | 10.0 | 1,000 | 100 |");
  expect(text).toContain("| fp16 product | 1x384 by 1536 |  | 5.00 |  |");
  expect(text).toContain("| fp32 | 100 | 219,033 | 2,300 | 2.50 |");
  expect(text).not.toContain("ROC AUC");
});
