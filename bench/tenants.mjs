// What training several tenants' adapters in one process saves over one run after another: wall time and peak memory (VmHWM).
//
//   node bench/tenants.mjs [--model DIR] [--tenants 3] [--steps 4] [--batch 8] [--threads 1]
//
// Without --model it makes one of e5-small's shape with random weights.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runProgram } from "./process.mjs";
import { writeE5Shape } from "./random-model.mjs";
import { figure, markdownTable, mebibytes } from "./table.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    model: { type: "string" },
    tenants: { type: "string", default: "3" },
    steps: { type: "string", default: "4" },
    batch: { type: "string", default: "8" },
    threads: { type: "string", default: "1" },
  },
});
const folder = mkdtempSync(join(tmpdir(), "peft-train-bench-"));

async function measure(args) {
  const startedAt = performance.now();
  const { peakBytes } = await runProgram(process.execPath, [
    join(ROOT, "bin/peft-train.js"),
    ...args,
    "--quiet",
  ]);
  return { seconds: (performance.now() - startedAt) / 1000, peakBytes };
}

try {
  const shared = {
    model_name_or_path: values.model ?? writeE5Shape(join(folder, "model"), join(ROOT, "data/encoder")),
    dataset_name: join(ROOT, "data/pairs/train.csv"),
    max_train_steps: Number(values.steps),
    per_device_train_batch_size: Number(values.batch),
    num_threads: Number(values.threads),
    report: false,
  };
  const names = Array.from({ length: Number(values.tenants) }, (_, i) => `tenant-${i}`);
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
    `${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}; ${values.tenants} tenants, ${values.steps} steps of ${values.batch} pairs, ${values.threads} threads\n`,
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
} finally {
  rmSync(folder, { recursive: true, force: true });
}
