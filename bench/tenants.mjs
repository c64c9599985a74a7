// What training several tenants' adapters in one process saves over one run after another: wall time and peak memory (VmHWM).
//
//   node bench/tenants.mjs [--model DIR] [--tenants 3] [--steps 4] [--batch 8] [--threads 1]
//
// Without --model it makes one of e5-small's shape with random weights.
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { modelFolder, readArguments, wholeNumber } from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";
import { runProgram } from "./process.mjs";
import { writeE5Shape } from "./random-model.mjs";
import { figure, markdownTable, mebibytes } from "./table.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

await benchmark("bench/tenants.mjs", readOptions, main);

async function main(options, folder) {
  const shared = {
    model_name_or_path: options.model ?? writeE5Shape(join(folder, "model"), join(ROOT, "data/encoder")),
    dataset_name: join(ROOT, "data/pairs/train.csv"),
    max_train_steps: options.steps,
    per_device_train_batch_size: options.batch,
    num_threads: options.threads,
    report: false,
  };
  const names = Array.from({ length: options.tenants }, (_, i) => `tenant-${i}`);
  const config = join(folder, "tenants.json");
  const tenants = Object.fromEntries(names.map((name, seed) => [name, { seed }]));
  writeFileSync(config, JSON.stringify({ ...shared, output_dir: join(folder, "together"), tenants }));
  const together = await measure(["train-many", `--config=${config}`]);
  const alone = [];
  for (const [seed, name] of names.entries()) {
    const one = join(folder, `${name}.json`);
    writeFileSync(one, JSON.stringify({ ...shared, seed, output_dir: join(folder, "alone", name) }));
    alone.push(await measure([`--config=${one}`]));
  }
  const total = alone.reduce((sum, { seconds }) => sum + seconds, 0);
  const peak = Math.max(...alone.map(({ peakBytes }) => peakBytes));
  console.log(
    `${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}; ${options.tenants} tenants, ${options.steps} steps of ${options.batch} pairs, ${options.threads} threads\n`,
  );
  console.log(
    markdownTable(
      ["", "seconds", "peak MiB"],
      [
        ["one process", figure(together.seconds), mebibytes(together.peakBytes)],
        ["one run after another", figure(total), mebibytes(peak)],
        [
          `${names.length} processes at once`,
          "",
          mebibytes(alone.reduce((sum, { peakBytes }) => sum + peakBytes, 0)),
        ],
      ],
    ),
  );
}

function readOptions(argv) {
  const text = (value) => ({ type: "string", default: value });
  const values = readArguments(argv, {
    model: { type: "string" },
    tenants: text("3"),
    steps: text("4"),
    batch: text("8"),
    threads: text("1"),
  });
  for (const [name, least] of Object.entries({ tenants: 1, steps: 1, batch: 1, threads: 0 }))
    values[name] = wholeNumber(name, values[name], least);
  if (values.model !== undefined) modelFolder("model", values.model);
  return values;
}

async function measure(args) {
  const startedAt = performance.now();
  const { peakBytes } = await runProgram(process.execPath, [
    join(ROOT, "bin/peft-train.js"),
    ...args,
    "--quiet",
  ]);
  return { seconds: (performance.now() - startedAt) / 1000, peakBytes };
}
