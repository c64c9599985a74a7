import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { combineAdapters } from "../../lib/adapter/combine.js";
import { readTexts } from "../../lib/data/texts.js";
import { Encoder } from "../../lib/encoder.js";
import { convert } from "../../lib/merge/convert.js";
import { mergeAdapter } from "../../lib/merge/merge.js";
import { train } from "../../lib/train/train.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { python } from "./python.js";

// PEFT_TRAIN_INTEROP_PYTHON: a Python with PEFT and transformers.
const temporary = temporaryFolder();
const data = (name: string) => fileURLToPath(new URL(`../../data/${name}`, import.meta.url));
/** Mean-pooled, normalised vectors of every folder: an adapter on the base, in a wrapper where its names ask for one, or a model. */
const EMBED = `
import json, os, sys, torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer
base, texts = sys.argv[1], json.loads(sys.argv[2])
batch = AutoTokenizer.from_pretrained(base)(["query: " + t for t in texts], padding=True, truncation=True, max_length=64, return_tensors="pt")

class Wrapper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, **inputs):
        return self.model(**inputs)

def load(folder):
    if not os.path.exists(folder + "/adapter_config.json"):
        return AutoModel.from_pretrained(folder)
    model = AutoModel.from_pretrained(base)
    return PeftModel.from_pretrained(Wrapper(model) if folder.endswith("wrapped") else model, folder)

found = []
for folder in sys.argv[3:]:
    with torch.no_grad():
        hidden = load(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    found.append(torch.nn.functional.normalize(pooled, dim=1).flatten().tolist())
print(json.dumps(found))
`;
const quiet = { HF_HUB_OFFLINE: "1", OMP_NUM_THREADS: "1", TRANSFORMERS_VERBOSITY: "error" };

it("PEFT and transformers load what is combined, converted and merged here, and give the same vectors", async () => {
  const model = data("encoder");
  for (const [name, more] of [
    ["seed1", { seed: 1 }],
    ["seed2", { seed: 2 }],
    ["biased", { seed: 3, loraBias: true }],
    ["own", { bias: "all", modulesToSave: ["LayerNorm", "pooler"] }],
    ["dora", { useDora: true }],
    ["eva", { initLoraWeights: "eva" }],
  ] as const) {
    await train({
      datasetName: data("pairs/train.csv"),
      maxTrainSteps: 6,
      learningRate: 5e-3,
      report: false,
      modelNameOrPath: model,
      outputDir: temporary.path(name),
      maxLength: 64,
      ...more,
    }).result;
  }
  const [one, two] = [temporary.path("seed1"), temporary.path("seed2")];
  await combineAdapters(
    [
      { adapter: one, weight: 0.7 },
      { adapter: two, weight: -0.4 },
    ],
    temporary.path("cat"),
  );
  await combineAdapters([one, two], temporary.path("svd"), { method: "svd", svdRank: 5 });
  await convert(one, temporary.path("one-wrapped"), { layout: "wrapped" });
  await mergeAdapter(model, one, temporary.path("merged"));
  await combineAdapters([one, temporary.path("biased")], temporary.path("cat-biased"));
  for (const name of ["own", "dora"]) {
    await convert(temporary.path(name), temporary.path(`${name}-wrapped`), { layout: "wrapped" });
  }
  await mergeAdapter(model, temporary.path("own"), temporary.path("own-merged"));
  const texts = [...new Set(await readTexts(data("pairs/test.csv"), "question1"))].slice(0, 60);
  const names = ["cat", "svd", "one-wrapped", "merged", "cat-biased", "own", "own-wrapped", "own-merged"];
  const folders = [...names, "dora-wrapped", "eva"].map((name) => temporary.path(name));
  const found: number[][] = await python(EMBED, [model, JSON.stringify(texts), ...folders], quiet);
  const base = await vectors(model, undefined, texts);
  for (const [i, folder] of folders.entries()) {
    const adapter = folder.endsWith("own-merged") ? temporary.path("own") : one;
    const wanted = await vectors(model, folder.endsWith("merged") ? adapter : folder, texts);
    const away = (a: readonly number[]) =>
      Math.max(...wanted.map((value, k) => Math.abs(value - (a[k] as number))));
    // float32 sums in another order, as for every comparison with Python.
    expect(away(found[i] as number[]), folder).toBeLessThan(1e-5);
    expect(away(base), folder).toBeGreaterThan(1e-3);
  }
});

async function vectors(model: string, adapter: string | undefined, texts: string[]): Promise<number[]> {
  await using encoder = await Encoder.load(model, { adapter });
  const rows = await encoder.encode(texts, { prefix: "query: ", maxLength: 64 });
  return rows.flatMap((row) => [...row]);
}
