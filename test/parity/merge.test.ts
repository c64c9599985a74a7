import { describe, expect, it } from "vitest";
import { readStoredAdapter } from "../../lib/adapter/stored-adapter.js";
import { mergeTensors } from "../../lib/merge/merged-weights.js";
import { ModelWeights } from "../../lib/model/model-weights.js";
import { writeSafetensors } from "../../lib/model/tensor-writer.js";
import { loadEngine } from "../../lib/native/load.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { maxDifference } from "./distance.js";
import { caseTexts, goldenEmbeddings, goldenPath, goldenShape, manifest, pick } from "./golden.js";

const temporary = temporaryFolder();
/** As for the adapter on its base: float32 sums in another order, on entries of up to 0.5. */
const TOLERANCE = 1e-5;

/** They run over what they left of the base, which only the engine finds again: own-merge.test.ts. */
const SPLIT = ["pissa", "olora"];

describe("weights merged here give the embeddings of PEFT's adapter", () => {
  const names = [
    ...Object.keys(manifest.adapters).filter((name) => !SPLIT.includes(name)),
    "qkv-wrapped",
    "dora-wrapped",
  ];
  for (const name of names) {
    it(name, async () => {
      const plain = name.replace("-wrapped", "");
      const { model } = pick(manifest.adapters, plain);
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
        const options = { adapter: false, normalize: true, microBatchTokens: 4096 };
        const wanted = pick(goldenEmbeddings, `adapter.${plain}`);
        expect(maxDifference(await encoder.encode(caseTexts, options), wanted)).toBeLessThan(TOLERANCE);
      } finally {
        await encoder.close();
      }
    });
  }
});
