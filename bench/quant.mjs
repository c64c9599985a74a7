// What frozen weights in fewer bits cost and save: trains once in every storage format and prints a table.
//
//   npm run bench:quant -- --model DIR --train FILE --test FILE [--only nf4,int8] [--seed 42] [--json FILE]
//
// Without options it takes the project's own encoder and pairs. One process a row, so that its peak memory (VmHWM) is
// its own; rows run one after the other, and the first one (float32) runs again at the end to show how quiet the machine was.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { existingFile, modelFolder, readArguments, someOf, wholeNumber, writableFile } from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";
import { runProgram } from "./process.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MIB = 2 ** 20;

const nf4 = ["--load_in_4bit"];
const fp4 = ["--load_in_4bit", "--bnb_4bit_quant_type=fp4"];
const ROWS = {
  float32: [],
  float16: ["--torch_dtype=float16"],
  bfloat16: ["--torch_dtype=bfloat16"],
  int8: ["--load_in_8bit", "--outlier_threshold=0"],
  "int8+outliers": ["--load_in_8bit"],
  nf4,
  "nf4+double": [...nf4, "--bnb_4bit_use_double_quant"],
  "nf4+outliers": [...nf4, "--outlier_fraction=0.005"],
  fp4,
  "fp4+outliers": [...fp4, "--outlier_fraction=0.005"],
};

await benchmark("bench:quant", readOptions, main);

async function main(options, folder) {
  const names = options.only;
  const rows = [];
  for (const name of names.length > 1 ? [...names, names[0]] : names) {
    const row = await measure(name, options, folder);
    console.error(JSON.stringify(row));
    rows.push(row);
  }
  if (names.length > 1) rows.at(-1).name += " again";
  const result = {
    machine: `${cpus()[0].model}, ${cpus().length} cores`,
    node: process.version,
    seed: options.seed,
    rows,
  };
  console.log(`${result.machine}, Node ${result.node}, seed ${result.seed}\n\n${table(rows)}`);
  if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
}

function readOptions(argv) {
  const values = readArguments(argv, {
    model: { type: "string", default: join(ROOT, "data/encoder") },
    train: { type: "string", default: join(ROOT, "data/pairs/train.csv") },
    test: { type: "string", default: join(ROOT, "data/pairs/test.csv") },
    only: { type: "string", default: Object.keys(ROWS).join(",") },
    seed: { type: "string", default: "42" },
    max_length: { type: "string", default: "70" },
    json: { type: "string" },
  });
  values.only = someOf("only", values.only, Object.keys(ROWS));
  values.seed = wholeNumber("seed", values.seed, 0);
  values.max_length = wholeNumber("max_length", values.max_length, 3);
  for (const name of ["train", "test"]) existingFile(name, values[name]);
  modelFolder("model", values.model);
  if (values.json !== undefined) writableFile("json", values.json);
  return values;
}

async function measure(name, options, folder) {
  const out = join(folder, "out");
  const { peakBytes } = await runProgram(process.execPath, [
    join(ROOT, "bin/peft-train.js"),
    `--model_name_or_path=${options.model}`,
    `--dataset_name=${options.train}`,
    `--eval_dataset_name=${options.test}`,
    `--max_length=${options.max_length}`,
    "--num_train_epochs=1",
    "--per_device_train_batch_size=64",
    `--seed=${options.seed}`,
    `--output_dir=${out}`,
    ...ROWS[name],
  ]);
  const lines = readFileSync(join(out, "train_log.jsonl"), "utf8").trim().split("\n");
  rmSync(out, { recursive: true, force: true });
  const events = lines.map((line) => JSON.parse(line));
  const evaluations = events.filter((e) => e.event === "evaluated");
  const memory = events.find((e) => e.event === "memory");
  const finished = events.find((e) => e.event === "finished");
  const logged = events.filter((e) => e.event === "log").at(-1);
  return {
    name,
    before: evaluations[0].metrics.roc_auc,
    after: evaluations.at(-1).metrics.roc_auc,
    linearBytes: memory?.plan?.linear,
    embeddingBytes: memory?.plan?.embeddings,
    peakBytes,
    pairsPerSecond: (finished ?? logged)?.pairs_per_second,
  };
}

function table(rows) {
  const mib = (bytes) => (bytes === undefined ? "" : (bytes / MIB).toFixed(1));
  const first = rows[0];
  const head = [
    "| frozen weights | AUC zero-shot | AUC trained | against float32 | matrices MiB | embeddings MiB | peak RSS MiB | pairs/s |",
    "|---|---|---|---|---|---|---|---|",
  ];
  const body = rows.map((r) => {
    const gap = r.after - first.after;
    return `| ${r.name} | ${r.before.toFixed(4)} | ${r.after.toFixed(4)} | ${gap >= 0 ? "+" : ""}${gap.toFixed(4)} | ${mib(r.linearBytes)} | ${mib(r.embeddingBytes)} | ${mib(r.peakBytes)} | ${r.pairsPerSecond?.toFixed(1) ?? ""} |`;
  });
  return [...head, ...body].join("\n");
}
