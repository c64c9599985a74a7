import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { readTexts } from "../../lib/data/texts.js";
import { Encoder } from "../../lib/encoder.js";
import { type ExportOptions, exportModel } from "../../lib/export/export.js";
import { train } from "../../lib/train/train.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { python } from "./python.js";

// PEFT_TRAIN_INTEROP_PYTHON: a Python with sentence-transformers and onnx.
const temporary = temporaryFolder();
const data = (name: string) => fileURLToPath(new URL(`../../data/${name}`, import.meta.url));
const ENCODE = `
import json, sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist()))
`;
const SAVE = `
import json, sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
model.save(sys.argv[2])
print(json.dumps(model.encode(json.loads(sys.argv[3])).tolist()))
`;
const CHECK = `
import json, sys, onnx
model = onnx.load(sys.argv[1])
onnx.checker.check_model(model, full_check=True)
print(json.dumps({"opset": model.opset_import[0].version, "outputs": [o.name for o in model.graph.output]}))
`;
const quiet = { HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1", TRANSFORMERS_VERBOSITY: "error" };

it("SentenceTransformer gives the vectors of what is exported, and onnx's checker takes the graph", async () => {
  const adapter = temporary.path("adapter");
  await train({
    modelNameOrPath: data("encoder"),
    datasetName: data("pairs/train.csv"),
    maxTrainSteps: 10,
    learningRate: 5e-3,
    question1Prefix: "query: ",
    question2Prefix: "passage: ",
    report: false,
    outputDir: adapter,
  }).result;
  const texts = [...new Set(await readTexts(data("pairs/test.csv"), "question1"))].slice(0, 100);
  const cases: [string, ExportOptions][] = [
    ["with", { adapter }],
    ["without", { queryPrefix: "ask: ", maxLength: 24 }],
    ["raw", { adapter, normalize: false, pooling: "cls" }],
  ];
  for (const [name, options] of cases) {
    await exportModel(data("encoder"), temporary.path(name), "sentence-transformers", options);
    const found: number[][] = await python(ENCODE, [temporary.path(name), JSON.stringify(texts)], quiet);
    await using encoder = await Encoder.load(data("encoder"), {
      adapter: options.adapter,
      pooling: options.pooling,
    });
    const wanted = await encoder.encode(texts, {
      normalize: options.normalize,
      prefix: options.queryPrefix,
      maxLength: options.maxLength,
    });
    const size = Math.hypot(...(wanted[0] as Float32Array));
    const off = wanted.map((row, i) =>
      Math.max(...row.map((x, k) => Math.abs(x - (found[i]?.[k] as number)))),
    );
    // float32 sums in another order, as for every comparison with Python.
    expect(Math.max(...off) / size, name).toBeLessThan(1e-5);
  }
  // Saved again by a version that keeps the length with the tokenizer, it is cut at the same place.
  const long = [texts.join(" ")];
  const saved = temporary.path("saved");
  const again: number[][] = await python(
    SAVE,
    [temporary.path("without"), saved, JSON.stringify(long)],
    quiet,
  );
  await using encoder = await Encoder.load(saved);
  expect(encoder.defaults).toEqual({ prefix: "ask: ", maxLength: 24 });
  const [found] = await encoder.encode(long);
  expect(
    Math.max(...(found as Float32Array).map((x, k) => Math.abs(x - (again[0]?.[k] as number)))),
  ).toBeLessThan(1e-5);
  await exportModel(data("encoder"), temporary.path("onnx"), "onnx", { adapter, sentenceEmbedding: true });
  expect(await python(CHECK, [temporary.path("onnx", "onnx", "model.onnx")], quiet)).toEqual({
    opset: 17,
    outputs: ["last_hidden_state", "sentence_embedding"],
  });
});
