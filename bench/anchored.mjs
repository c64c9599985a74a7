// What anchoring and keeping save of the base model: trains plainly, kept, anchored and both, and compares drift where
// all have the same AUC.
//
//   node bench/anchored.mjs --model DIR --train 100.csv,1000.csv --test FILE --unrelated FILE [--seeds 1] [--json FILE]
//
// --unrelated: pairs, of which the questions are what is kept and, others of them, what drift is measured on.
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  existingFile,
  modelFolder,
  readArguments,
  UsageError,
  wholeNumber,
  wholeNumbers,
  writableFile,
} from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";
import { readPairs, writePairs } from "./data.mjs";
import { runProgram } from "./process.mjs";
import { median } from "./statistics.mjs";
import { markdownTable } from "./table.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const ROWS = {
  plain: [],
  "--keep_weight=1": ["--keep_weight=1"],
  "--anchor=question2": ["--anchor=question2"],
  "--anchor=question2 --keep_weight=1": ["--anchor=question2", "--keep_weight=1"],
};
/** Optimiser steps between two points of a run's way, and points. */
const WAY = { every: 10, points: 4, batch: 16 };

await benchmark("bench/anchored.mjs", readOptions, main);

async function main(options, folder) {
  const files = { test: join(folder, "test.csv"), kept: join(folder, "kept.jsonl") };
  writePairs(files.test, readPairs(options.test, options.test_pairs));
  const kept = readPairs(options.unrelated, options.kept_texts);
  writeFileSync(files.kept, kept.map(({ question1 }) => JSON.stringify({ text: question1 })).join("\n"));
  const ways = [];
  for (const train of options.train) {
    for (const seed of options.seeds) {
      for (const name of Object.keys(ROWS)) {
        const run = {
          train: basename(train),
          seed,
          name,
          way: await wayOf(name, train, seed, options, files, folder),
        };
        console.error(JSON.stringify(run));
        ways.push(run);
      }
    }
  }
  for (const train of new Set(ways.map((run) => run.train))) {
    const ofTrain = ways.filter((run) => run.train === train);
    const before = ofTrain[0].way[0].auc;
    const best = ({ way }) => Math.max(...way.map(({ auc }) => auc));
    // Where all of a seed's runs have come to.
    const common = (seed) => Math.min(...ofTrain.filter((run) => run.seed === seed).map(best));
    const rows = Object.keys(ROWS).map((name) => {
      const runs = ofTrain.filter((run) => run.name === name);
      return [
        name,
        median(runs.map(best)).toFixed(4),
        median(runs.map((run) => common(run.seed))).toFixed(4),
        median(runs.map((run) => 1 - cosineAt(run.way, common(run.seed)))).toFixed(4),
        median(runs.map((run) => 1 - run.way.at(-1).cosine)).toFixed(4),
      ];
    });
    console.log(`\n${train}, AUC before training ${before.toFixed(4)}\n`);
    console.log(
      markdownTable(["", "best AUC", "equal AUC", "drift there", "drift after the last step"], rows),
    );
  }
  if (options.json) writeFileSync(options.json, `${JSON.stringify(ways, null, 2)}\n`);
}

function readOptions(argv) {
  const values = readArguments(argv, {
    model: { type: "string" },
    train: { type: "string" },
    test: { type: "string" },
    unrelated: { type: "string" },
    seeds: { type: "string", default: "1" },
    test_pairs: { type: "string", default: "500" },
    kept_texts: { type: "string", default: "300" },
    threads: { type: "string", default: "0" },
    json: { type: "string" },
  });
  for (const name of ["model", "train", "test", "unrelated"])
    if (values[name] === undefined) throw new UsageError(`--${name} is required`);
  modelFolder("model", values.model);
  values.train = values.train.split(",").map((file) => existingFile("train", file));
  for (const name of ["test", "unrelated"]) existingFile(name, values[name]);
  values.seeds = wholeNumbers("seeds", values.seeds, 0);
  for (const [name, least] of Object.entries({ test_pairs: 1, kept_texts: 1, threads: 0 }))
    values[name] = wholeNumber(name, values[name], least);
  if (values.json !== undefined) writableFile("json", values.json);
  return values;
}

/** The way of one run: AUC and mean cosine to the base model, from before training on. */
async function wayOf(name, train, seed, options, files, folder) {
  const out = join(folder, "out");
  await runProgram(process.execPath, [
    join(ROOT, "bin/peft-train.js"),
    `--model_name_or_path=${options.model}`,
    `--dataset_name=${train}`,
    `--eval_dataset_name=${files.test}`,
    `--keep_dataset=${files.kept}`,
    "--prefix=",
    "--max_length=70",
    `--per_device_train_batch_size=${WAY.batch}`,
    `--max_train_steps=${WAY.every * WAY.points}`,
    `--eval_steps=${WAY.every}`,
    `--seed=${seed}`,
    `--num_threads=${options.threads}`,
    "--no-report",
    "--overwrite_output_dir",
    `--output_dir=${out}`,
    ...ROWS[name],
  ]);
  const lines = readFileSync(join(out, "train_log.jsonl"), "utf8").trim().split("\n");
  return lines
    .map((line) => JSON.parse(line))
    .filter(({ event }) => event === "evaluated")
    .map(({ step, metrics }) => ({ step, auc: metrics.roc_auc, cosine: metrics.base_cosine }));
}

/** Cosine to the base model where the way first reaches `auc`, between two points by a straight line. */
function cosineAt(way, auc) {
  const next = way.findIndex((point) => point.auc >= auc);
  const [before, after] = [way[Math.max(0, next - 1)], way[next]];
  if (next <= 0 || after.auc === before.auc) return after.cosine;
  return before.cosine + ((after.cosine - before.cosine) * (auc - before.auc)) / (after.auc - before.auc);
}
