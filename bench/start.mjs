import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { trainingFiles } from "./data.mjs";
import { eventNamed, runProgram } from "./process.mjs";
import { summary } from "./statistics.mjs";

const BATCH = 64;

/** Seconds until the help stands there, and until the first training step of the small encoder is done. */
export async function benchStart({ root, python, options, folder, say }) {
  const program = join(root, "bin/peft-train.js");
  const model = join(root, "data/encoder");
  const own = join(folder, "start");
  mkdirSync(own);
  const files = trainingFiles(join(root, "data/pairs/train.csv"), BATCH, options.seed, own);
  const out = join(folder, "out");
  const help = { name: "`--help`", run: () => runProgram(process.execPath, [program, "--help"]) };
  const first = [
    {
      name: "first training step",
      run: () =>
        runProgram(process.execPath, [
          program,
          "--json",
          `--model_name_or_path=${model}`,
          `--dataset_name=${files.ours}`,
          "--max_train_steps=1",
          `--output_dir=${out}`,
        ]),
    },
    {
      name: "first training step, the article's script",
      run: () => python.run("train.py", [`--model=${model}`, `--pairs=${files.python}`]),
    },
  ];
  const rows = (options.quick ? [help] : [help, ...first]).map((row) => ({ ...row, seconds: [] }));
  // The first round fills the page cache.
  for (let round = 0; round <= options.starts; round++) {
    for (const row of rows) {
      const result = await row.run();
      rmSync(out, { recursive: true, force: true });
      if (round > 0) row.seconds.push(row === rows[0] ? result.seconds : eventNamed(result, "step").at);
    }
  }
  for (const { name, seconds } of rows) say(`start: ${name}: ${summary(seconds).median.toFixed(3)} s`);
  return {
    model: "data/encoder",
    rows: rows.map(({ name, seconds }) => ({ name, seconds: summary(seconds) })),
  };
}
