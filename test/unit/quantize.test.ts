import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { PeftTrainError } from "../../lib/errors.js";
import { fingerprint } from "../../lib/model/fingerprint.js";
import { openModelFolder } from "../../lib/model/folder.js";
import { type QuantizeModelOptions, quantize } from "../../lib/quantize.js";
import { FakeEngine } from "../support/fake-engine.js";
import { copyQuantModel } from "../support/quant-golden.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
let model: string;
let count = 0;

beforeAll(() => {
  model = writeTinyModel(temporary.path("model"));
});

/** A folder of its own, in which nothing but `out` may appear. */
function newParent(): string {
  const parent = temporary.path(`parent-${count++}`);
  mkdirSync(parent);
  return parent;
}

const run = (output: string, { from, ...options }: QuantizeModelOptions & { from?: string } = {}) =>
  quantize(from ?? model, output, "nf4", { engine: () => new FakeEngine(), ...options });

describe("quantising a folder", () => {
  it("keeps the layout that modules.json describes, empty modules included, and takes no other weights along", async () => {
    const root = temporary.path("nested");
    writeTinyModel(join(root, "0_Transformer"));
    for (const module of ["1_Pooling", "2_Normalize", "onnx"]) mkdirSync(join(root, module));
    writeFileSync(join(root, "1_Pooling", "config.json"), '{"pooling_mode_mean_tokens": true}');
    writeFileSync(join(root, "onnx", "model.onnx"), "");
    const names = ["0_Transformer", "1_Pooling", "2_Normalize"];
    const modules = names.map((path) => ({
      path,
      type: `sentence_transformers.models.${path.slice(2)}`,
    }));
    writeFileSync(join(root, "modules.json"), JSON.stringify(modules));
    const out = join(newParent(), "deeper", "out");
    await run(out, { from: root });
    expect(readdirSync(out).sort()).toEqual([...names, "modules.json"]);
    expect(readdirSync(join(out, "1_Pooling"))).toEqual(["config.json"]);
    expect(readdirSync(join(out, "0_Transformer")).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "peft_train_quantized.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
  });

  it("takes an empty folder, and tells how far it is", async () => {
    const out = newParent();
    const told: number[][] = [];
    const { output, storage } = await run(out, { onProgress: (...now) => told.push(now) });
    expect(told).toEqual([
      [1, 2],
      [2, 2],
    ]);
    expect(output).toBe(out);
    expect(storage).toMatchObject({ format: "nf4", blockSize: 64 });
    expect(existsSync(join(out, "config.json"))).toBe(true);
  });

  it("leaves nothing behind when it is stopped or fails", async () => {
    const stop = new AbortController();
    const parent = newParent();
    const stopped = run(join(parent, "out"), { signal: stop.signal, onProgress: () => stop.abort() });
    await expect(stopped).rejects.toMatchObject({ code: "ABORTED" });
    const failing = new FakeEngine();
    failing.quantize = async ({ output }) => {
      writeFileSync(output, "half");
      throw new Error("the disk is full");
    };
    await expect(run(join(parent, "out"), { engine: () => failing })).rejects.toThrow("the disk is full");
    expect(readdirSync(parent)).toEqual([]);
  });

  it("ends with the caller's own error where onProgress throws", async () => {
    const parent = newParent();
    const mine = new Error("mine");
    const thrown = run(join(parent, "out"), {
      onProgress: () => {
        throw mine;
      },
    });
    await expect(thrown).rejects.toBe(mine);
    expect(readdirSync(parent)).toEqual([]);
  });

  it("does not write through a symbolic link", async () => {
    const parent = newParent();
    symlinkSync(join(parent, "nowhere"), join(parent, "out"));
    const engine = () => expect.fail("the engine was loaded");
    await expect(run(join(parent, "out"), { engine })).rejects.toMatchObject({
      code: "OUTPUT_EXISTS",
      message: expect.stringContaining("is a symbolic link"),
    });
  });

  it("names the folder that was asked for where the engine cannot write", async () => {
    const failing = new FakeEngine();
    failing.quantize = async ({ output }) => {
      throw new PeftTrainError("OUTPUT_UNWRITABLE", `Cannot write ${output}: no space left`);
    };
    const out = join(newParent(), "out");
    await expect(run(out, { engine: () => failing })).rejects.toThrow(
      `Cannot write ${out}/model.safetensors: no`,
    );
  });

  for (const [model, out] of [
    ["", "out"],
    [undefined, "out"],
    ["model", undefined],
    ["model", ""],
  ]) {
    it(`takes paths only: ${model}, ${out}`, async () => {
      await expect(quantize(model as string, out as string, "nf4")).rejects.toMatchObject({
        code: "USAGE",
        message: expect.stringContaining("expected the path of a folder"),
      });
    });
  }

  it("refuses what is quantised already, and folders that hold something", async () => {
    const quantised = copyQuantModel("int8", temporary.path("int8"));
    const engine = () => expect.fail("the engine was loaded");
    await expect(run(join(newParent(), "out"), { from: quantised, engine })).rejects.toMatchObject({
      code: "ALREADY_QUANTIZED",
      message: `${quantised} is quantised already, as int8, outliers from 6 apart`,
    });
    await expect(run(model, { engine })).rejects.toMatchObject({ code: "OUTPUT_EXISTS" });
    expect(readdirSync(model)).toHaveLength(4);
  });
});

describe("where quantised weights come from", () => {
  /** A quantised folder with a record, as `quantize` writes one. */
  async function recorded(change: (record: Record<string, unknown>) => void = () => {}): Promise<string> {
    const folder = copyQuantModel("nf4", temporary.path(`recorded-${count++}`));
    const { weights } = await fingerprint(await openModelFolder(folder));
    const record = { format: 1, source_weights_sha256: "a".repeat(64), weights_sha256: weights };
    change(record);
    writeFileSync(join(folder, "peft_train_quantized.json"), JSON.stringify(record));
    return folder;
  }
  const sourceOf = async (folder: string) => (await fingerprint(await openModelFolder(folder))).source;

  it("is known by the record beside them", async () => {
    expect(await sourceOf(await recorded())).toBe("a".repeat(64));
    const out = join(newParent(), "out");
    await run(out);
    const record = JSON.parse(readFileSync(join(out, "peft_train_quantized.json"), "utf8"));
    const { weights } = await fingerprint(await openModelFolder(model));
    expect(record).toMatchObject({ source_weights_sha256: weights, source_model: model });
  });

  it("cannot be told from a damaged record, which may be deleted", async () => {
    const folder = await recorded();
    writeFileSync(join(folder, "peft_train_quantized.json"), '{"format": 1,');
    await expect(sourceOf(folder)).rejects.toMatchObject({
      message: expect.stringContaining("peft_train_quantized.json is not valid JSON"),
      hint: expect.stringMatching(/delete that file/),
    });
    rmSync(join(folder, "peft_train_quantized.json"));
    expect(await sourceOf(folder)).toBeUndefined();
  });

  it("is not known where the record is of other weights, or of another version", async () => {
    for (const change of [
      { weights_sha256: "b".repeat(64) },
      { format: 2 },
      { source_weights_sha256: "../etc" },
    ]) {
      expect(await sourceOf(await recorded((record) => Object.assign(record, change)))).toBeUndefined();
    }
    expect(await sourceOf(copyQuantModel("nf4", temporary.path("unrecorded")))).toBeUndefined();
  });
});
