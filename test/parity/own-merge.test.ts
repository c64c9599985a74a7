import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openAdapterFolder } from "../../lib/adapter/folder.js";
import { readStoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { readMergeable } from "../../lib/merge/mergeable.js";
import { mergeTensors } from "../../lib/merge/merged-weights.js";
import { ModelWeights } from "../../lib/model/model-weights.js";
import { writeSafetensors } from "../../lib/model/tensor-writer.js";
import { loadEngine } from "../../lib/native/load.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { maxDifference } from "./distance.js";
import {
  caseTexts,
  goldenEmbeddings,
  goldenPath,
  goldenShape,
  manifest,
  pick,
  withGolden,
} from "./golden.js";
import { goldenFolder } from "./golden-folder.js";
import { readTensors } from "./safetensors.js";

/** Embeddings of the models that PEFT's merge_and_unload made of these adapters and their bases. */
const merged = readTensors(goldenPath("merged.safetensors")).floats;
const temporary = temporaryFolder();
/** As for the adapter on its base: float32 sums in another order, on entries of up to 0.5. */
const TOLERANCE = 1e-5;

const modelOf = (name: string) =>
  name.startsWith("own/") ? "plain" : pick(manifest.adapters, name.replace("adapters/", "")).model;

describe("models with parameters of an adapter's own, or over a part of the base, are those that PEFT merges", () => {
  for (const [name, wanted] of Object.entries(merged)) {
    it(name, async () => {
      const base = modelOf(name);
      const model = await goldenFolder(base, temporary.path(base));
      const adapter = await readMergeable(await openAdapterFolder(goldenPath(name), model), model);
      const file = temporary.path(`${name.replace("/", "-")}.safetensors`);
      {
        await using weights = await ModelWeights.open(model.weightsPath);
        await writeSafetensors(file, weights.sources("float32", mergeTensors(weights, adapter, "float32")));
      }
      const { pooling } = pick(manifest.models, base);
      const encoder = await loadEngine().open({
        weightsPath: file,
        shape: goldenShape(base),
        pooling,
        device: "cpu",
        threads: 1,
      });
      try {
        const options = { adapter: false, normalize: true, microBatchTokens: 4096 };
        const found = await encoder.encode(caseTexts, options);
        expect(maxDifference(found, wanted)).toBeLessThan(TOLERANCE);
        const plain = pick(goldenEmbeddings, `${base}.${pooling}`);
        expect(maxDifference(found, plain)).toBeGreaterThan(100 * TOLERANCE);
      } finally {
        await encoder.close();
      }
    });
  }
});

describe("merged into a base that is loaded they are so too", () => {
  it.each(Object.entries(merged))("%s", async (name, wanted) => {
    const base = modelOf(name);
    const model = await goldenFolder(base, temporary.path(`loaded-${base}`));
    const adapter = await openAdapterFolder(goldenPath(name), model);
    await withGolden(base, {}, async (encoder) => {
      const encode = (adapter: string | false) =>
        encoder.encode(caseTexts, { adapter, normalize: true, microBatchTokens: 4096 });
      await encoder.loadAdapter(adapter.weightsPath, adapter.spec, "theirs");
      const before = [await encode("theirs"), await encode(false)];
      await encoder.mergeAdapter("theirs", "merged", false);
      expect(maxDifference(await encode("merged"), wanted)).toBeLessThan(TOLERANCE);
      await encoder.removeAdapter("merged");
      expect([await encode("theirs"), await encode(false)]).toEqual(before);
    });
  });
});

it("an own tensor that is missing, or one too many, is refused by name", async () => {
  const model = await goldenFolder("plain", temporary.path("plain"));
  for (const [name, bias, message] of [
    ["lora-only", "all", /asks for embeddings\.LayerNorm\.bias, which .* does not hold/],
    ["bias-all", "lora_only", /tensor "base_model\.model\.\S+\.bias" is none of LoRA/],
  ] as const) {
    const folder = temporary.path(name);
    cpSync(goldenPath(`own/${name}`), folder, { recursive: true });
    const file = `${folder}/adapter_config.json`;
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), bias }));
    const failure = openAdapterFolder(folder, model).then((opened) => readMergeable(opened, model));
    await expect(failure).rejects.toMatchObject({ message: expect.stringMatching(message) });
  }
});

it.each(["pissa", "olora"])("what runs over a part of the base says nothing without it: %s", async (name) => {
  await expect(readStoredAdapter(goldenPath(`adapters/${name}`))).rejects.toMatchObject({
    code: "ADAPTER_UNSUPPORTED",
    message: expect.stringContaining(`init_lora_weights is "${name}"`),
    hint: expect.stringContaining("convert ADAPTER --model BASE"),
  });
});
