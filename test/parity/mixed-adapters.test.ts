import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import type { NativeEncoder } from "../../lib/native/types.js";
import { maxDifference } from "./distance.js";
import {
  adapterPath,
  caseTexts,
  goldenEmbeddings,
  goldenPath,
  goldenSpec,
  pick,
  specOfFolder,
  textBatch,
  withGolden,
} from "./golden.js";
import { readTensors } from "./safetensors.js";

const golden = (name: string) =>
  fileURLToPath(new URL(`../fixtures/mixed-adapters/${name}`, import.meta.url));
const expected = pick(readTensors(golden("embeddings.safetensors")).floats, "embeddings");
const ofText: string[] = JSON.parse(readFileSync(golden("manifest.json"), "utf8")).adapters;
const names = [...new Set(ofText)].filter((name) => name !== "__base__");
const adapterOfText = Int32Array.from(ofText, (name) => names.indexOf(name));

/** As in embeddings.test.ts: twenty times what fp32 in the reference is from float64. */
const EMBEDDING_TOLERANCE = 1e-5;

const withAll = (body: (encoder: NativeEncoder) => Promise<void>) =>
  withGolden("plain", {}, async (encoder) => {
    for (const name of names) await encoder.loadAdapter(adapterPath(name), goldenSpec(name), name);
    await body(encoder);
  });

describe("a batch of several adapters", () => {
  for (const microBatchTokens of [1, 300, 4096]) {
    it(`equals PEFT's adapter_names, in micro-batches of ${microBatchTokens} tokens`, () =>
      withAll(async (encoder) => {
        const rows = await encoder.encode(caseTexts, {
          adapter: false,
          adapters: names,
          adapterOfText,
          normalize: true,
          microBatchTokens,
        });
        expect(maxDifference(rows, expected)).toBeLessThan(EMBEDDING_TOLERANCE);
      }));
  }

  it("gives every text, to the bit, the row it has alone", () =>
    withAll(async (encoder) => {
      const options = { normalize: true, microBatchTokens: 4096 };
      const mixed = { adapter: false, adapters: names, adapterOfText, ...options };
      const rows = await encoder.encode(caseTexts, mixed);
      const width = rows.length / ofText.length;
      for (const [i, name] of ofText.entries()) {
        const adapter = name === "__base__" ? false : name;
        const alone = await encoder.encode(textBatch([i]), { adapter, ...options });
        expect(rows.subarray(i * width, (i + 1) * width), `text ${i}, ${name}`).toEqual(alone);
      }
    }));

  /** PEFT refuses most of these in one batch, but has the vectors of each. */
  const expectOwn = async (encoder: NativeEncoder, references: Map<string, Float32Array>) => {
    const loaded = [...references.keys()];
    const count = caseTexts.cuSeqlens.length - 1;
    const choice = Int32Array.from({ length: count }, (_, i) => ((i * 3) % (loaded.length + 1)) - 1);
    expect(new Set(choice).size).toBe(loaded.length + 1);
    const options = { normalize: true, microBatchTokens: 300 };
    const mixed = { adapter: false, adapters: loaded, adapterOfText: choice, ...options };
    const rows = await encoder.encode(caseTexts, mixed);
    const width = rows.length / count;
    for (const [i, at] of choice.entries()) {
      const name = loaded[at];
      const row = rows.subarray(i * width, (i + 1) * width);
      const alone = await encoder.encode(textBatch([i]), { adapter: name ?? false, ...options });
      expect(row, `text ${i}, ${name}`).toEqual(alone);
      const theirs =
        name === undefined ? pick(goldenEmbeddings, "plain.mean") : (references.get(name) as Float32Array);
      const reference = theirs.subarray(i * width, (i + 1) * width);
      expect(maxDifference(row, reference), `text ${i}, ${name}`).toBeLessThan(EMBEDDING_TOLERANCE);
    }
  };

  it("may hold DoRA, biases on B and adapters over a part of the base, which PEFT refuses or has no one base for", () =>
    withGolden("plain", {}, async (encoder) => {
      const variants = ["dora", "lora-bias", "pissa", "qkv"];
      for (const name of variants) await encoder.loadAdapter(adapterPath(name), goldenSpec(name), name);
      const references = variants.map((name) => [name, pick(goldenEmbeddings, `adapter.${name}`)] as const);
      await expectOwn(encoder, new Map(references));
    }));

  it("may hold adapters with biases and modules of their own beside others", () =>
    withGolden("plain", {}, async (encoder) => {
      const own = readTensors(goldenPath("own/embeddings.safetensors")).floats;
      const references = new Map(Object.entries(own));
      for (const name of references.keys()) {
        const file = goldenPath(`own/${name}/adapter_model.safetensors`);
        await encoder.loadAdapter(file, specOfFolder(`own/${name}`), name);
      }
      for (const name of ["qkv", "dora"]) {
        await encoder.loadAdapter(adapterPath(name), goldenSpec(name), name);
        references.set(name, pick(goldenEmbeddings, `adapter.${name}`));
      }
      await expectOwn(encoder, references);
    }));
});
