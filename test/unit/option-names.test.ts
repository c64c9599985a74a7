import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { combineAdapters, convert, Encoder, exportModel, mergeAdapter, quantize } from "../../lib/index.js";
import { requireKnownOptions } from "../../lib/option-names.js";
import { FakeEngine } from "../support/fake-engine.js";

const MODEL = fileURLToPath(new URL("../../data/encoder", import.meta.url));
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
    [() => quantize(MODEL, "out", "nf4", slip("onprogress")), "onprogress", "quantize", "onProgress"],
  ];
  for (const [call, name, where, meant] of calls)
    await expect((async () => call())(), where).rejects.toMatchObject({
      code: "USAGE",
      message: `unknown option ${name} of ${where}`,
      hint: `Did you mean ${meant}?`,
    });
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
