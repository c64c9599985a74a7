import { describe, expect, it } from "vitest";
import { readStoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { mergeTensors } from "../../lib/merge/merged-weights.js";
import { ModelWeights } from "../../lib/model/model-weights.js";
import { writeSafetensors } from "../../lib/model/tensor-writer.js";
import { loadEngine } from "../../lib/native/load.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { maxDifference } from "./distance.js";
import {
  adapterPath,
  caseTexts,
  goldenEmbeddings,
  goldenPath,
  goldenShape,
  goldenSpec,
  manifest,
  pick,
  withGolden,
} from "./golden.js";

const temporary = temporaryFolder();
/** As for the adapter on its base: float32 sums in another order, on entries of up to 0.5. */
const TOLERANCE = 1e-5;
/**
 * Both sum in double precision and round once; where the sums' last bits fall on either side of a float32, that weight differs by its
 * last bit. None does here; a unit vector's entries would by some 1e-8.
 */
const SAME_WEIGHTS = 2e-7;
const ENCODE = { normalize: true, microBatchTokens: 4096 };

/** They run over what they left of the base, which only the engine finds again: own-merge.test.ts. */
const SPLIT = ["pissa", "olora"];

const mergeable = Object.keys(manifest.adapters).filter((name) => !SPLIT.includes(name));

/** Embeddings of a model file that an adapter was merged into. */
async function mergedFile(name: string): Promise<Float32Array> {
  const { model } = pick(manifest.adapters, name.replace("-wrapped", ""));
  const adapter = await readStoredAdapter(goldenPath(`adapters/${name}`));
  const file = temporary.path(`${name}.safetensors`);
  {
    await using weights = await ModelWeights.open(goldenPath(`models/${model}/model.safetensors`));
    await writeSafetensors(file, weights.sources("float32", mergeTensors(weights, adapter, "float32")));
  }
  const encoder = await loadEngine().open({
    weightsPath: file,
    shape: goldenShape(model),
    pooling: pick(manifest.models, model).pooling,
    device: "cpu",
    threads: 1,
  });
  try {
    return await encoder.encode(caseTexts, { adapter: false, ...ENCODE });
  } finally {
    await encoder.close();
  }
}

describe("weights merged here give the embeddings of PEFT's adapter", () => {
  it.each([...mergeable, "qkv-wrapped", "dora-wrapped"])("%s", async (name) => {
    const wanted = pick(goldenEmbeddings, `adapter.${name.replace("-wrapped", "")}`);
    expect(maxDifference(await mergedFile(name), wanted)).toBeLessThan(TOLERANCE);
  });
});

describe("an adapter merged into a base that is loaded gives the embeddings of PEFT's adapter", () => {
  it.each(Object.keys(manifest.adapters))("%s", async (name) => {
    await withGolden(pick(manifest.adapters, name).model, {}, async (encoder) => {
      const encode = (adapter: string | false) => encoder.encode(caseTexts, { adapter, ...ENCODE });
      await encoder.loadAdapter(adapterPath(name), goldenSpec(name), name);
      const before = await encode(name);
      const base = await encode(false);
      await encoder.mergeAdapter(name, "merged", false);
      const merged = await encode("merged");
      expect(maxDifference(merged, pick(goldenEmbeddings, `adapter.${name}`))).toBeLessThan(TOLERANCE);
      if (!SPLIT.includes(name))
        expect(maxDifference(merged, await mergedFile(name))).toBeLessThan(SAME_WEIGHTS);
      expect([await encode(name), await encode(false)]).toEqual([before, base]);
      await encoder.removeAdapter("merged");
      expect([await encode(name), await encode(false)]).toEqual([before, base]);
    });
  });
});
