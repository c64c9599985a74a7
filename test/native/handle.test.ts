import { describe, expect, it } from "vitest";
import { gatherTexts } from "../../lib/embed.js";
import { loadEngine } from "../../lib/native/load.js";
import type { NativeEncoder, OpenOptions } from "../../lib/native/types.js";
import { casePairs, caseTexts, goldenPath, goldenShape, goldenSpec } from "../parity/golden.js";

const OPEN: OpenOptions = {
  weightsPath: goldenPath("models/plain/model.safetensors"),
  shape: goldenShape("plain"),
  pooling: "mean",
  device: "cpu",
  threads: 1,
};
const ENCODE = { adapter: false, normalize: true, microBatchTokens: 1024 };
const STEP = {
  seed: 1,
  step: 0,
  learningRate: 1e-3,
  weightDecay: 0,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  maxGradNorm: 0,
  microBatchTokens: 1024,
};
const spec = goldenSpec(Object.keys((await import("../parity/golden.js")).manifest.adapters)[0] as string);

const open = (): Promise<NativeEncoder> => loadEngine().open(OPEN);

describe("a native encoder", () => {
  it("tells what it runs on", async () => {
    const { engineVersion, torchVersion, cpuKernels } = loadEngine().info();
    expect(engineVersion).toMatch(/^\d+\.\d+\.\d+$/);
    expect(torchVersion).toMatch(/^2\.\d+\.\d+/);
    expect(cpuKernels).toMatch(/^(avx512|avx2|generic)(-paired)?$/);
    const encoder = await open();
    expect(encoder.info()).toMatchObject({ device: "cpu", threads: 1, trainableParameters: 0 });
    await encoder.close();
  });

  it("refuses every call after close, and closes twice", async () => {
    const encoder = await open();
    await encoder.close();
    await encoder.close();
    const closed = { name: "PeftTrainError", code: "ENCODER_CLOSED" };
    await expect(encoder.encode(caseTexts, ENCODE)).rejects.toMatchObject(closed);
    await expect(encoder.createAdapter(spec, 1)).rejects.toMatchObject(closed);
    await expect(encoder.step(casePairs, STEP)).rejects.toMatchObject(closed);
    await expect(encoder.adapterWeights()).rejects.toMatchObject(closed);
    expect(() => encoder.info()).toThrow(expect.objectContaining(closed));
  });

  it("refuses a second call while one runs, and finishes the first", async () => {
    const encoder = await open();
    const first = encoder.encode(caseTexts, ENCODE);
    await expect(encoder.encode(caseTexts, ENCODE)).rejects.toMatchObject({ code: "ENCODER_BUSY" });
    expect(() => encoder.info()).toThrow(expect.objectContaining({ code: "ENCODER_BUSY" }));
    expect((await first).length).toBe((caseTexts.cuSeqlens.length - 1) * OPEN.shape.hiddenSize);
    expect((await encoder.encode(caseTexts, ENCODE)).length).toBeGreaterThan(0);
    await encoder.close();
  });

  it("waits for a running call when it is closed", async () => {
    const encoder = await open();
    const order: string[] = [];
    const call = encoder.encode(caseTexts, ENCODE).then(() => order.push("encode"));
    const closing = [encoder.close(), encoder.close()].map((p) => p.then(() => order.push("close")));
    await Promise.all([call, ...closing]);
    expect(order).toEqual(["encode", "close", "close"]);
  });

  it("works side by side with others", async () => {
    const encoders = await Promise.all([open(), open(), open()]);
    const rows = await Promise.all(encoders.map((encoder) => encoder.encode(caseTexts, ENCODE)));
    expect(rows[1]).toEqual(rows[0]);
    expect(rows[2]).toEqual(rows[0]);
    await Promise.all(encoders.map((encoder) => encoder.close()));
  });

  it("keeps nothing of a batch: the arrays may change once the call was made", async () => {
    const encoder = await open();
    const expected = await encoder.encode(caseTexts, ENCODE);
    const batch = { ids: caseTexts.ids.slice(), cuSeqlens: caseTexts.cuSeqlens.slice() };
    const call = encoder.encode(batch, ENCODE);
    batch.ids.fill(0);
    batch.cuSeqlens.fill(0);
    expect(await call).toEqual(expected);
    await encoder.close();
  });

  it("needs an adapter to train, and says so", async () => {
    const encoder = await open();
    await expect(encoder.step(casePairs, STEP)).rejects.toMatchObject({ code: "USAGE" });
    await expect(encoder.saveAdapter("nowhere")).rejects.toMatchObject({ code: "USAGE" });
    await encoder.createAdapter(spec, 1);
    expect((await encoder.step(casePairs, STEP)).loss).toBeGreaterThan(0);
    await encoder.removeAdapter();
    await expect(encoder.step(casePairs, STEP)).rejects.toMatchObject({ code: "USAGE" });
    await encoder.close();
  });

  it("stops at a loss that is not finite and leaves the weights as they were", async () => {
    const encoder = await open();
    await encoder.createAdapter(spec, 1);
    await encoder.step(casePairs, { ...STEP, learningRate: 1e30 });
    const before = await encoder.adapterWeights();
    await expect(encoder.step(casePairs, STEP)).rejects.toMatchObject({ code: "NOT_FINITE" });
    expect(await encoder.adapterWeights()).toEqual(before);
    await encoder.close();
  });

  it("gives no vectors that are not finite", async () => {
    const encoder = await open();
    await encoder.createAdapter(spec, 1);
    await encoder.step(casePairs, { ...STEP, learningRate: 1e30 });
    await expect(encoder.encode(caseTexts, { ...ENCODE, adapter: true })).rejects.toMatchObject({
      code: "NOT_FINITE",
    });
    expect((await encoder.encode(caseTexts, ENCODE)).length).toBeGreaterThan(0);
    await encoder.close();
  });

  it("rejects a missing file and a device that is not there", async () => {
    await expect(loadEngine().open({ ...OPEN, weightsPath: "/nowhere.safetensors" })).rejects.toMatchObject({
      name: "PeftTrainError",
      code: "FILE_NOT_FOUND",
    });
    await expect(loadEngine().open({ ...OPEN, device: "cuda:99" })).rejects.toMatchObject({
      code: "DEVICE_UNAVAILABLE",
    });
    await expect(loadEngine().open({ ...OPEN, device: "tpu" })).rejects.toMatchObject({ code: "USAGE" });
  });

  it("takes texts as vectors, and texts to keep", async () => {
    const shape = { ...OPEN.shape, hiddenDropout: 0, attentionDropout: 0 };
    const encoder = await loadEngine().open({ ...OPEN, shape });
    await encoder.createAdapter(spec, 1);
    const width = OPEN.shape.hiddenSize;
    const { cuSeqlens, labels } = casePairs;
    const texts = Int32Array.from(labels.keys());
    const side = (place: number) =>
      gatherTexts(
        { ids: casePairs.ids, offsets: cuSeqlens },
        texts.map((i) => 2 * i + place),
      );
    const vectors = await encoder.encode(side(1), ENCODE);
    expect(vectors).toHaveLength(width * texts.length);
    const plain = await encoder.gradients(casePairs, STEP);
    // An adapter that is nothing yet: the anchored side is where it was, and half of the gradient is gone.
    const anchored = { ...side(0), labels, textsPerExample: 2, fixed: { first: 1, count: 1, vectors } };
    const found = await encoder.gradients(anchored, STEP);
    expect(found.loss).toBeCloseTo(plain.loss, 6);
    expect(found.gradients).not.toEqual(plain.gradients);
    // As far away as a vector can be: 1 - cosine is 2.
    const kept = { ...side(1), vectors: vectors.map((value) => -value), weight: 1.5 };
    expect((await encoder.gradients({ ...anchored, kept }, STEP)).loss).toBeCloseTo(plain.loss + 3, 5);
    const few = { ...anchored, fixed: { first: 1, count: 1, vectors: vectors.subarray(1) } };
    await expect(encoder.step(few, STEP)).rejects.toMatchObject({ code: "USAGE" });
    await encoder.close();
  });

  it("throws a TypeError for every value of a wrong type, and goes on", async () => {
    const encoder = await open();
    const raw = encoder as unknown as Record<string, (...args: unknown[]) => unknown>;
    const strange = [
      undefined,
      null,
      0,
      -1,
      Number.NaN,
      "x",
      [],
      {},
      new Uint8Array(4),
      () => 0,
      Symbol("s"),
    ];
    const calls: [string, unknown[]][] = strange.flatMap((value): [string, unknown[]][] => [
      ["encode", [value, ENCODE]],
      ["encode", [caseTexts, { ...ENCODE, microBatchTokens: value }]],
      ["encode", [{ ids: value, cuSeqlens: caseTexts.cuSeqlens }, ENCODE]],
      ["step", [value, STEP]],
      ["step", [{ ...casePairs, labels: value }, STEP]],
      ...(value === undefined
        ? []
        : ([
            ["step", [{ ...casePairs, fixed: value }, STEP]],
            ["step", [{ ...casePairs, kept: value }, STEP]],
          ] as [string, unknown[]][])),
      ["createAdapter", [value, 1]],
      ["createAdapter", [{ modules: value, dropout: 0 }, 1]],
      ["createAdapter", [{ modules: [value], dropout: 0 }, 1]],
      ["loadAdapter", [value, value]],
    ]);
    for (const [method, args] of calls) {
      let error: unknown;
      try {
        await raw[method]?.(...args);
      } catch (thrown) {
        error = thrown;
      }
      expect(error, `${method}(${args.map((arg) => typeof arg).join(", ")})`).toBeInstanceOf(TypeError);
    }
    expect((await encoder.encode(caseTexts, ENCODE)).length).toBeGreaterThan(0);
    await encoder.close();
  });

  it("does not grow over hundreds of calls", async () => {
    const encoder = await open();
    await encoder.createAdapter(spec, 1);
    const round = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await encoder.encode(caseTexts, ENCODE);
        await encoder.step(casePairs, STEP);
      }
    };
    await round(50);
    const before = process.memoryUsage.rss();
    await round(300);
    // A leaked batch or result would be some 30 MB here; the JavaScript heap itself breathes by a few.
    expect(process.memoryUsage.rss() - before).toBeLessThan(24e6);
    await encoder.close();
  });
});
