import { rmSync } from "node:fs";
import { join } from "node:path";
import { multipliesBfloat16 } from "./machine.mjs";
import { eventNamed, runProgram } from "./process.mjs";
import { bestSetting, SHORT_WAITS, settingText } from "./search.mjs";
import { pairedRatio, summary } from "./statistics.mjs";

export const ARTICLE = "the article's script";
const LONGEST = ["--padding=longest"];
const sorted = (pairs) => [...LONGEST, "--joined", `--micro=${pairs}`];

const PYTHON_ROWS = [
  { name: ARTICLE, flags: [] },
  { name: "padded to the longest of the batch", flags: LONGEST },
  { name: "sorted, micro-batches of 8", flags: sorted(8), env: SHORT_WAITS },
  { name: "sorted, micro-batches of 16", flags: sorted(16), env: SHORT_WAITS },
  // bfloat16 is another precision: beside ours of the same, and never the best that float32 is held against.
  {
    name: "sorted, micro-batches of 16, bfloat16",
    flags: [...sorted(16), "--bf16"],
    env: SHORT_WAITS,
    neverChosen: true,
  },
];
const OUR_ROWS = [
  { name: "peft-train", flags: [] },
  { name: "peft-train, NF4", flags: ["--load_in_4bit"] },
  { name: "peft-train, int8 weights", flags: ["--load_in_8bit"] },
  { name: "peft-train, int8 compute", flags: ["--compute=int8"] },
  { name: "peft-train, bfloat16", flags: ["--mixed_precision=bf16"] },
];

/** A flag of `--ours` that is not there is found by the small encoder, and not after minutes of Python. */
export async function tryTrainingRows({ root, options, folder, files }) {
  const small = { root, options, folder, files, model: join(root, "data/encoder") };
  for (const { value } of options.ours)
    await measure({ side: "ours", flags: ["--sanity_test", "--max_train_steps=2", ...value] }, small, 1);
}

/** Steps of training, row after row and then again from the first, so that both sides share the machine's moods. */
export async function benchTraining({ root, python, options, folder, model, modelName, files, say }) {
  const context = { root, python, options, folder, model, files };
  const [theirs, ours] = options.quick
    ? [PYTHON_ROWS.slice(0, 1), OUR_ROWS.slice(0, 1)]
    : [PYTHON_ROWS.filter(({ flags }) => !flags.includes("--bf16") || multipliesBfloat16()), [...OUR_ROWS]];
  if (!options.quick && theirs.length < PYTHON_ROWS.length)
    say("train: Python in bfloat16 is left out, for this processor does not multiply it");
  for (const { name, value } of options.ours) ours.push({ name: `peft-train, ${name}`, flags: value });
  let search;
  if (options.search) {
    search = await bestSetting(async (flags, env, timeoutSeconds) => {
      const measured = await measure({ side: "python", flags, env, timeoutSeconds }, context);
      return measured.pairsPerSecond;
    }, say);
    theirs.push({ name: "best setting found by --search", flags: search.best.flags, env: search.best.env });
  }
  const rows = [
    ...theirs.map((row) => ({ ...row, side: "python", runs: [] })),
    ...ours.map((row) => ({ ...row, side: "ours", runs: [] })),
  ];
  for (let round = 1; round <= options.rounds; round++) {
    for (const row of rows) {
      const run = await measure(row, context);
      row.runs.push(run);
      say(`train, round ${round}: ${row.name}: ${run.pairsPerSecond.toFixed(2)} pairs/s`);
    }
  }
  const bySettings = (row) => {
    const settings = settingText(row);
    return settings === "" ? row.name : `${row.name} (\`${settings}\`)`;
  };
  const { results, best } = compared(rows);
  return {
    model: modelName,
    count: (options.warm + options.steps) * options.batch,
    rows: results,
    bestPython: bySettings(rows[best]),
    ...(search && { search }),
  };
}

/**
 * Every row beside the article's script and the fastest Python.
 * @returns {{ results: any[], best: number }} `best` is the place of the latter.
 */
export function compared(rows) {
  const measured = rows.map(({ name, side, flags, env, neverChosen, runs }) => ({
    name,
    side,
    flags,
    ...(env && { env }),
    ...(neverChosen && { neverChosen }),
    pairsPerSecond: summary(runs.map((run) => run.pairsPerSecond)),
    peakBytes: runs.some((run) => run.peakBytes === undefined)
      ? undefined
      : Math.max(...runs.map((run) => run.peakBytes)),
    firstLoss: runs[0].firstLoss,
  }));
  const rate = (row) => row.pairsPerSecond.median;
  const article = measured.find(({ name }) => name === ARTICLE);
  const best = measured.reduce(
    (found, row, i) =>
      row.side === "python" && !row.neverChosen && rate(row) > rate(measured[found]) ? i : found,
    measured.indexOf(article),
  );
  const against = (row, other) => pairedRatio(row.pairsPerSecond.values, other.pairsPerSecond.values);
  const results = measured.map((row) => ({
    ...row,
    againstArticle: against(row, article),
    againstBestPython: against(row, measured[best]),
  }));
  return { results, best };
}

async function measure(row, { root, python, options, folder, model, files }, warm = options.warm) {
  const { side, flags, env, timeoutSeconds } = row;
  const out = join(folder, "out");
  const shared = [`--max_length=${options.max_length}`, `--seed=${options.seed}`];
  const run =
    side === "python"
      ? await python.run(
          "train.py",
          [`--model=${model}`, `--pairs=${files.python}`, `--batch=${options.batch}`, ...shared, ...flags],
          { env: { TORCHINDUCTOR_CACHE_DIR: join(folder, "inductor"), ...env }, timeoutSeconds },
        )
      : await runProgram(process.execPath, [
          join(root, "bin/peft-train.js"),
          "--json",
          `--model_name_or_path=${model}`,
          `--dataset_name=${files.ours}`,
          `--per_device_train_batch_size=${options.batch}`,
          "--num_train_epochs=1",
          `--output_dir=${out}`,
          ...shared,
          ...flags,
        ]);
  rmSync(out, { recursive: true, force: true });
  return {
    pairsPerSecond: steadyRate(run.events, warm),
    peakBytes: run.peakBytes,
    firstLoss: eventNamed(run, "step").loss,
  };
}

/** Pairs a second of the steps after the first `warm`, by the clock of whoever reads them: nothing between steps is left out. */
export function steadyRate(events, warm) {
  const steps = events.filter(({ event }) => event === "step");
  if (warm < 1 || steps.length <= warm)
    throw new Error(`${steps.length} steps, of which ${warm} are not counted`);
  const pairs = steps.slice(warm).reduce((sum, step) => sum + step.pairs, 0);
  return pairs / (steps.at(-1).at - steps[warm - 1].at);
}
