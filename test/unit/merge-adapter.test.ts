import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import type { MergeAdapterOptions } from "../../lib/index.js";
import { train } from "../../lib/train/train.js";
import { FakeEngine } from "../support/fake-engine.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
let model: string;
let folder: string;
let other: string;

beforeAll(async () => {
  model = writeTinyModel(temporary.path("model"));
  const datasetName = writePairs(temporary.path("pairs.csv"), 60);
  const trained = async (name: string, maxTrainSteps: number) => {
    const outputDir = temporary.path(name);
    const given = { modelNameOrPath: model, datasetName, outputDir, report: false, maxTrainSteps };
    await train({ ...given, prefix: "a ", maxLength: 12 }, { engine: () => new FakeEngine() }).result;
    return outputDir;
  };
  folder = await trained("support", 1);
  other = await trained("sales", 2);
});

const probe = ["d e", "f", "g h i"];

async function load(options: { moves?: number; quantize?: "nf4" | "int8" } = {}) {
  const engine = Object.assign(new FakeEngine(), { adaptersTurn: true, mergeMoves: options.moves ?? 0 });
  const encoder = await Encoder.load(model, { engine: () => engine, quantize: options.quantize });
  await encoder.addAdapter("support", folder);
  await encoder.addAdapter("sales", other);
  const merge = (given: MergeAdapterOptions = {}) => encoder.mergeAdapter("support", { probe, ...given });
  /** The engine's names of the adapters of the last batches. */
  const last = (count: number) => engine.encoded.slice(-count).map(({ adapter }) => adapter);
  return { encoder, engine, merge, last };
}

const mergedNames = (encoder: Encoder) =>
  encoder.adapters.filter(({ merged }) => merged).map(({ name }) => name);

describe("merging an adapter into the base of an encoder", () => {
  it("tells what it came to, and takes its texts through the merged weights", async () => {
    const { encoder, engine, merge, last } = await load();
    const result = await merge();
    expect(result).toEqual({
      meanDrift: 0,
      worstDrift: 0,
      worstText: "d e",
      texts: 3,
      modules: 2,
      bytes: 4000,
      dtype: "float32",
      warnings: [],
    });
    expect(engine.merges).toEqual([{ name: "support#1", merged: "support#3", exact: false }]);
    // The probe is read as the adapter's texts are: "[CLS] a d e [SEP]".
    expect(engine.encoded.at(-1)?.batch.cuSeqlens[1]).toBe(5);
    expect(mergedNames(encoder)).toEqual(["support"]);
    await encoder.encode(["d"], { adapter: "support" });
    await encoder.encode(["d"], { adapter: "sales" });
    await encoder.encode(["d"], { adapter: false });
    expect(last(3)).toEqual(["support#3", "sales#2", false]);
    await encoder.unmergeAdapter("support");
    expect(mergedNames(encoder)).toEqual([]);
    await encoder.encode(["d"], { adapter: "support" });
    expect(last(1)).toEqual(["support#1"]);
  });

  it("measures on questions of the package unless it is given texts", async () => {
    const { encoder } = await load();
    expect((await encoder.mergeAdapter("support")).texts).toBe(256);
  });

  it("leaves it unmerged where vectors move more than is allowed", async () => {
    const { encoder, merge, last } = await load({ moves: 5 });
    const before = await encoder.encode(["d"], { adapter: "support" });
    const refused = {
      code: "MERGE_DRIFT",
      message: expect.stringMatching(
        /^merged in float32, the vector of ".+" is [\d.]+ \(1 - cosine\) from that of "support" beside its base, the mean of 3 texts [\d.]+; 0\.001 is allowed\. It stays unmerged$/,
      ),
      hint: "Allow more with tolerance.",
    };
    await expect(merge()).rejects.toMatchObject(refused);
    expect(mergedNames(encoder)).toEqual([]);
    expect(await encoder.encode(["d"], { adapter: "support" })).toEqual(before);
    expect(last(1)).toEqual(["support#1"]);
    const result = await merge({ tolerance: 2 });
    expect(result.worstDrift).toBeGreaterThan(result.meanDrift);
    expect(result.meanDrift).toBeGreaterThan(1e-3);
    expect(mergedNames(encoder)).toEqual(["support"]);
  });

  it("rounds to a quantised base's codes with a warning and no tolerance of its own, or not at all", async () => {
    const { encoder, engine, merge } = await load({ moves: 5, quantize: "nf4" });
    await expect(merge({ tolerance: 1e-4 })).rejects.toMatchObject({
      message: expect.stringContaining("merged in nf4"),
      hint: 'Take dtype: "float32", or allow more with tolerance.',
    });
    const rounded = await merge();
    expect(rounded).toMatchObject({ dtype: "nf4" });
    expect(rounded.warnings).toEqual([
      `merged weights were rounded to nf4: vectors are ${rounded.meanDrift.toPrecision(2)} (1 - cosine) from those of base and ` +
        `adapter in the mean, ${rounded.worstDrift.toPrecision(2)} at worst`,
    ]);
    await encoder.unmergeAdapter("support");
    expect(await merge({ dtype: "float32" })).toMatchObject({
      dtype: "float32",
      warnings: [],
      worstDrift: 0,
    });
    expect(engine.merges.map(({ exact }) => exact)).toEqual([false, false, true]);
  });

  it("is seen by the calls that are made after it, whole, and not by those before", async () => {
    const { encoder, engine, merge } = await load();
    // All different: a call encodes a text once.
    const many = Array.from({ length: 3000 }, (_, i) =>
      [...(i + 4096).toString(8)].map((n) => "defghijk"[Number(n)]).join(" "),
    );
    const before = encoder.encode(many, { adapter: "support" });
    const merging = merge();
    const during = encoder.encode(many, { adapter: "support" });
    await merging;
    const after = encoder.encode(many.slice(0, 1), { adapter: "support" });
    await encoder.unmergeAdapter("support");
    const unmerged = encoder.encode(many, { adapter: "support" });
    expect((await after)[0]).toEqual((await before)[0]);
    expect((await before).length).toBe(many.length);
    expect([await during, await unmerged]).toEqual([await before, await before]);
    const texts = new Map<unknown, number>();
    for (const { batch, adapter, adapters = [], adapterOfText } of engine.encoded) {
      for (let i = 0; i < batch.cuSeqlens.length - 1; i++) {
        const name = adapterOfText === undefined ? adapter : adapters[adapterOfText[i] as number];
        texts.set(name, (texts.get(name) ?? 0) + 1);
      }
    }
    // Both with the probe.
    expect(Object.fromEntries(texts)).toEqual({ "support#1": 9003, "support#3": 4 });
  });

  it("goes with the adapter, and what replaces one is unmerged", async () => {
    const { encoder, merge, last } = await load();
    await merge();
    expect(await encoder.addAdapter("support", other)).toEqual([
      '"support" was merged into the base; what replaces it is not',
    ]);
    expect(mergedNames(encoder)).toEqual([]);
    await encoder.encode(["d"], { adapter: "support" });
    expect(last(1)).toEqual(["support#4"]);
    await merge();
    await encoder.removeAdapter("support");
    expect(encoder.adapters.map(({ name }) => name)).toEqual(["sales"]);
    await expect(encoder.unmergeAdapter("support")).rejects.toMatchObject({ code: "USAGE" });
  });

  it("may be asked for again while the merge before it is freed", async () => {
    const { encoder, merge, last } = await load();
    await merge();
    await Promise.all([
      encoder.unmergeAdapter("support"),
      merge(),
      encoder.encode(["d"], { adapter: "sales" }),
    ]);
    await encoder.encode(["d"], { adapter: "support" });
    expect(last(1)).toEqual(["support#4"]);
  });

  it("refuses what cannot be", async () => {
    const { encoder, engine, merge } = await load();
    const usage = (message: string) => ({ code: "USAGE", message: expect.stringContaining(message) });
    await expect(encoder.mergeAdapter("suport")).rejects.toMatchObject({
      ...usage('no adapter "suport" is loaded'),
      hint: 'Did you mean "support"?',
    });
    await expect(encoder.unmergeAdapter("suport")).rejects.toMatchObject(usage('no adapter "suport"'));
    await expect(encoder.unmergeAdapter("support")).rejects.toMatchObject(usage("is not merged"));
    await expect(merge({ tolerance: -1 })).rejects.toMatchObject(usage("at least 0, found -1"));
    await expect(merge({ dtype: "nf4" as never })).rejects.toMatchObject(usage("found nf4"));
    await expect(merge({ probe: "text" as never })).rejects.toMatchObject(usage("probe: expected an array"));
    await expect(merge({ probe: [1] as never })).rejects.toMatchObject(usage("found number at 0"));
    await expect(merge({ probe: [] })).rejects.toMatchObject({ code: "DATA_EMPTY" });
    const aborted = merge({ signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({
      code: "ABORTED",
      message: "mergeAdapter was stopped by its signal",
    });
    expect(engine.merges).toHaveLength(1);
    expect(mergedNames(encoder)).toEqual([]);
    await merge();
    await expect(merge()).rejects.toMatchObject(usage('"support" is merged into the base already'));
    const unfinished = encoder.mergeAdapter("sales", { probe });
    const closing = encoder.close();
    await expect(unfinished).rejects.toMatchObject({ code: "ENCODER_CLOSED" });
    await closing;
    await expect(encoder.mergeAdapter("sales")).rejects.toMatchObject({ code: "ENCODER_CLOSED" });
    await expect(encoder.unmergeAdapter("support")).rejects.toMatchObject({ code: "ENCODER_CLOSED" });
    expect(engine.closed).toBe(1);
  });

  it("measures on the texts that it was given, whatever becomes of their array", async () => {
    const { encoder, engine } = await load();
    const texts = ["d e", "f"];
    const pushed = engine.merges.push.bind(engine.merges);
    engine.merges.push = (merge) => {
      texts.length = 0;
      return pushed(merge);
    };
    expect(await encoder.mergeAdapter("support", { probe: texts })).toMatchObject({
      texts: 2,
      worstDrift: 0,
    });
    await encoder.close();
  });

  it("leaves nothing of a merge that failed", async () => {
    const { encoder, engine, merge } = await load({ moves: 5 });
    await expect(merge()).rejects.toMatchObject({ code: "MERGE_DRIFT" });
    await expect(merge({ probe: [1] as never })).rejects.toMatchObject({ code: "USAGE" });
    const [, second] = engine.merges;
    expect(second?.merged).toBe("support#4");
    expect(engine.held().map(({ name }) => name)).toEqual(["sales#2", "support#1"]);
    await encoder.close();
  });
});
