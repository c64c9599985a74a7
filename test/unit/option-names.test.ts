import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import {
  combineAdapters,
  convert,
  Encoder,
  exportModel,
  mergeAdapter,
  quantize,
  train,
  trainMany,
} from "../../lib/index.js";
import { requireKnownOptions } from "../../lib/option-names.js";
import { FakeEngine } from "../support/fake-engine.js";

const MODEL = fileURLToPath(new URL("../../data/encoder", import.meta.url));
const OPTIONS = { modelNameOrPath: MODEL, datasetName: "none.csv", outputDir: "out" };
const slip = (name: string): object => ({ [name]: 1 });

it("an option that is mistyped is refused with the name that was meant, and never ignored", async () => {
  await using encoder = await Encoder.load(MODEL, { engine: () => new FakeEngine() });
  const calls: [call: () => unknown, name: string, where: string, meant: string][] = [
    [() => Encoder.load(MODEL, slip("quantise")), "quantise", "Encoder.load", "quantize"],
    [() => Encoder.load(MODEL, { batching: slip("maxQueu") }), "maxQueu", "batching", "maxQueue"],
    [() => encoder.encode(["a"], slip("adaptor")), "adaptor", "encode", "adapter"],
    [() => encoder.similarity(["a"], ["b"], slip("prefixx")), "prefixx", "similarity", "prefix"],
    [() => encoder.countTokens(["a"], slip("max_length")), "max_length", "countTokens", "maxLength"],
    [() => encoder.evaluate("x.csv", slip("batchsize")), "batchsize", "evaluate", "batchSize"],
    [() => encoder.evaluateRetrieval("x", slip("k")), "k", "evaluateRetrieval", "ks"],
    [() => mergeAdapter(MODEL, "a", "out", slip("tolerence")), "tolerence", "mergeAdapter", "tolerance"],
    [() => convert("a", "out", slip("dtyp")), "dtyp", "convert", "dtype"],
    [() => exportModel(MODEL, "out", "onnx", slip("adaptr")), "adaptr", "exportModel", "adapter"],
    [() => combineAdapters(["a", "b"], "out", slip("methode")), "methode", "combineAdapters", "method"],
    [() => encoder.evaluate("x.csv", { columns: slip("lable") }), "lable", "columns", "label"],
    [
      () => combineAdapters(["a", { adapter: "b", ...slip("wieght") }], "out"),
      "wieght",
      "adapter 1",
      "weight",
    ],
    [() => train(OPTIONS, slip("engin")).result, "engin", "train", "engine"],
    [() => trainMany({ a: OPTIONS }, slip("engin")).outcomes, "engin", "trainMany", "engine"],
    [() => quantize(MODEL, "out", "nf4", slip("onprogress")), "onprogress", "quantize", "onProgress"],
  ];
  for (const [call, name, where, meant] of calls)
    await expect((async () => call())(), where).rejects.toMatchObject({
      code: "USAGE",
      message: `unknown option ${name} of ${where}`,
      hint: `Did you mean ${meant}?`,
    });
});

it("an option of another kind is refused with what it has to be", async () => {
  await using encoder = await Encoder.load(MODEL, { engine: () => new FakeEngine() });
  const given = (options: object) => options as Record<string, never>;
  const calls: [call: () => unknown, message: string][] = [
    [() => encoder.encode(["a"], given({ prefix: 5 })), "prefix of encode: expected a string, found number"],
    [
      () => encoder.encode(["a"], given({ normalize: "no" })),
      "normalize of encode: expected a boolean, found string",
    ],
    [
      () => encoder.encode(["a"], given({ signal: {} })),
      "signal of encode: expected an AbortSignal, found object",
    ],
    [
      () => encoder.similarity(["a"], ["b"], given({ signal: null })),
      "signal of similarity: expected an AbortSignal, found null",
    ],
    [
      () => encoder.evaluate("x.csv", given({ onProgress: 1 })),
      "onProgress of evaluate: expected a function, found number",
    ],
    [
      () => encoder.evaluate("x.csv", given({ columns: { label: 3 } })),
      "label of columns: expected a string, found number",
    ],
    [
      () => encoder.evaluateRetrieval("x", given({ ks: "1" })),
      "ks: expected an array of numbers, found string",
    ],
    [
      () => encoder.encode(["a"], { adapter: false, adapters: [false] }),
      "adapter and adapters both say what texts are encoded with; give one of them",
    ],
    [() => combineAdapters("a" as never, "out"), "adapters: expected an array, found string"],
    [() => train(undefined as never).result, "train: expected an object with options, found undefined"],
    [
      () => trainMany(undefined as never).outcomes,
      "trainMany: expected an object with options, found undefined",
    ],
    [() => trainMany({ a: null as never }).outcomes, "a: expected an object with options, found null"],
    [() => convert(MODEL, undefined as never), "output: expected the path of a folder, found undefined"],
    [() => encoder.removeAdapter(undefined as never), "name of an adapter: expected a word, found undefined"],
  ];
  for (const [call, message] of calls)
    await expect((async () => call())(), message).rejects.toMatchObject({ code: "USAGE", message });
});

it("a signal of another realm is a signal", async () => {
  await using encoder = await Encoder.load(MODEL, { engine: () => new FakeEngine() });
  const { signal } = new AbortController();
  const foreign = new Proxy(signal, {
    get: (of, name) => Reflect.get(of, name).bind?.(of),
    getPrototypeOf: () => null,
  });
  expect(foreign).not.toBeInstanceOf(AbortSignal);
  expect(await encoder.encode(["a"], { signal: foreign })).toHaveLength(1);
});

it("options that are no object are refused, and a name that is near none brings the list", () => {
  const refused = (options: unknown) => () =>
    requireKnownOptions(options as object, { a: true, b: true }, "f");
  expect(refused(null)).toThrow("f: expected an object with options, found null");
  expect(refused("a")).toThrow("f: expected an object with options, found string");
  expect(refused(["a"])).toThrow("f: expected an object with options, found an array");
  expect(refused({ something: 1 })).toThrow(expect.objectContaining({ hint: "Options are a, b." }));
  expect(refused({ a: undefined })).not.toThrow();
});
