import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Encoder, quantize } from "../../dist/index.js";

/** What is quantised on both sides. The last two have no like in Python; it reads them all the same. */
const CASES = [
  { name: "nf4", settings: { type: "nf4" }, options: { load_in_4bit: true, bnb_4bit_quant_type: "nf4" } },
  {
    name: "nf4-double",
    settings: { type: "nf4", doubleQuant: true },
    options: { load_in_4bit: true, bnb_4bit_quant_type: "nf4", bnb_4bit_use_double_quant: true },
  },
  { name: "fp4", settings: { type: "fp4" }, options: { load_in_4bit: true, bnb_4bit_quant_type: "fp4" } },
  { name: "int8", settings: { type: "int8" }, options: { load_in_8bit: true } },
  // Longer blocks do not divide this model's rows, and bitsandbytes 0.50.2 restores such wrongly on AVX-512 CPUs.
  { name: "nf4-128", settings: { type: "nf4", blockSize: 128 }, options: null },
  { name: "nf4-outliers", settings: { type: "nf4", outlierFraction: 0.005 }, options: null },
];
const ADAPTED = "nf4-double";

async function embed(folder, texts, file, options = {}) {
  const encoder = await Encoder.load(folder, options);
  const vectors = await encoder.encode(texts, { prefix: "query: ", maxLength: 70 });
  await encoder.close();
  writeFileSync(
    file,
    Buffer.concat(vectors.map((row) => Buffer.from(row.buffer, row.byteOffset, row.byteLength))),
  );
}

/**
 * Quantised models of both sides on both sides.
 * @param {{ work: string, model: string, texts: string[], pairs: string, peftTrain: Function, script: Function }} parts
 * @returns {Promise<string>} The report that test/interop/quant.py wrote.
 */
export async function quantInterchange({ work, model, texts, pairs, peftTrain, script, say }) {
  const root = path.join(work, "quant");
  mkdirSync(root, { recursive: true });
  const cases = CASES.map((entry) => ({
    ...entry,
    ours: path.join(root, entry.name, "ours"),
    theirs: path.join(root, entry.name, "theirs"),
    vectors: path.join(root, `${entry.name}-ours.f32`),
    theirVectors: path.join(root, `${entry.name}-theirs.f32`),
  }));
  say("quantising here");
  for (const entry of cases) {
    await quantize(model, entry.ours, entry.settings);
    await embed(entry.ours, texts, entry.vectors);
  }
  const adapted = cases.find(({ name }) => name === ADAPTED);
  const adapter = { path: path.join(root, "adapter"), vectors: path.join(root, "adapter.f32") };
  say("training on 4-bit weights here");
  peftTrain([], {
    model_name_or_path: adapted.ours,
    dataset_name: pairs,
    output_dir: adapter.path,
    max_length: 70,
    per_device_train_batch_size: 16,
    learning_rate: 5e-3,
    max_train_steps: 8,
  });
  await embed(adapted.ours, texts, adapter.vectors, { adapter: adapter.path });

  const plan = { model, texts, cases, adapted: ADAPTED, adapter };
  const files = ["plan.json", "report.json"].map((name) => path.join(root, name));
  writeFileSync(files[0], JSON.stringify(plan));
  say("quantising in Python");
  script("test/interop/quant.py", ["quantise", ...files]);
  say("reading Python's quantised models here");
  for (const entry of cases) {
    if (entry.options !== null) await embed(entry.theirs, texts, entry.theirVectors);
  }
  script("test/interop/quant.py", ["compare", ...files]);
  return files[1];
}
