import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readPairs, writePairs } from "./data.mjs";
import { generatedPairs, generatedQuestion, wholeWords } from "./generated.mjs";
import { eventNamed, runProgram } from "./process.mjs";
import { writeE5Shape } from "./random-model.mjs";
import { median } from "./statistics.mjs";
import { steadyRate } from "./train.mjs";

/** The article's. */
export const ARTICLE_PAIRS = 73_011;
const TEXTS = 20_000;
const SINGLE = 200;
/** Steps of a GPU are told so many at a time; the first of these are not counted. */
const TOLD = 100;
const QUICK = { steps: 20, told: 5, texts: 2000, single: 50 };

const TRAINING = [
  { name: "fp32", flags: [] },
  { name: "fp32, every step waited for", flags: [], told: 1 },
  { name: "bf16 products", flags: ["--mixed_precision=bf16"] },
  { name: "int8 compute", flags: ["--compute=int8"] },
  { name: "NF4", flags: ["--load_in_4bit"] },
  { name: "int8", flags: ["--load_in_8bit"] },
];
const ENCODING = [
  { name: "fp32", load: {} },
  { name: "NF4", load: { quantize: "nf4" } },
  { name: "int8", load: { quantize: "int8" } },
];

/**
 * The model, the pairs and the texts to encode that were named, or generated ones.
 * @returns {{ model: { folder: string, said: string }, data: { file: string, said: string }, texts: string }} `said` is how
 * the report calls them, `texts` a file with a JSON array of them.
 */
export function prepare(options, root, folder) {
  const tokenizer = join(root, "data/encoder");
  const model = options.model
    ? { folder: options.model, said: options.model }
    : {
        folder: writeE5Shape(join(folder, "model"), tokenizer),
        said: "e5-small's shape with random weights",
      };
  const words = wholeWords(model.folder);
  const texts = join(folder, "texts.json");
  writeFileSync(texts, JSON.stringify(textsToEncode(options, words)));
  if (options.train) return { model, texts, data: { file: options.train, said: options.train } };
  const count = options.quick ? QUICK.steps * options.batch : ARTICLE_PAIRS;
  const file = join(folder, "train.csv");
  writePairs(file, Array.from(generatedPairs(count, words)));
  return { model, texts, data: { file, said: `${count} generated pairs` } };
}

/** Every kernel, and plain ATen calls in its place. */
export async function timeKernels(program, libtorch, say) {
  say("timing kernels");
  const ended = await runProgram(program, ["--times", libtorch]);
  const { computeCapability, seconds } = eventNamed(ended, "ready");
  const rows = ended.events.filter(({ event }) => event === "kernel");
  return { computeCapability, readySeconds: seconds, rows };
}

/** Whole runs, from the command to the written adapter. */
export async function timeTraining({ root, folder, say, device, model, data }, options) {
  const rows = [];
  const usual = options.quick ? QUICK.told : TOLD;
  for (const { name, flags, told = usual } of options.quick ? TRAINING.slice(0, 1) : TRAINING) {
    const out = join(folder, "out");
    const run = await runProgram(process.execPath, [
      join(root, "bin/peft-train.js"),
      "--json",
      `--device=${device}`,
      `--model_name_or_path=${model.folder}`,
      `--dataset_name=${data.file}`,
      ...(options.test ? [`--eval_dataset_name=${options.test}`] : []),
      ...(options.quick ? [`--max_train_steps=${QUICK.steps}`] : [`--num_train_epochs=${options.epochs}`]),
      `--per_device_train_batch_size=${options.batch}`,
      `--max_length=${options.max_length}`,
      `--seed=${options.seed}`,
      `--logging_steps=${told}`,
      `--output_dir=${out}`,
      ...flags,
    ]);
    rmSync(out, { recursive: true, force: true });
    const steps = run.events.filter(({ event }) => event === "step");
    const evaluations = run.events.filter(({ event }) => event === "evaluated");
    rows.push({
      name,
      seconds: run.seconds,
      firstStep: steps[0].at,
      steps: steps.length,
      pairs: steps.reduce((sum, step) => sum + step.pairs, 0),
      // A short run is over before a step counts.
      pairsPerSecond: steps.length > usual ? steadyRate(run.events, usual) : undefined,
      rocAuc: evaluations.at(-1)?.metrics.roc_auc,
      peakBytes: run.peakBytes,
    });
    say(`training, ${name}: ${run.seconds.toFixed(1)} s`);
  }
  return rows;
}

export async function timeEncoding({ root, say, device, model, texts }, options) {
  const rows = [];
  for (const { name, load } of options.quick ? ENCODING.slice(0, 1) : ENCODING) {
    const told = { model: model.folder, load: { ...load, device }, texts, maxLength: 128 };
    told.single = options.quick ? QUICK.single : SINGLE;
    const run = await runProgram(process.execPath, [
      join(root, "bench/encode-ours.mjs"),
      JSON.stringify(told),
    ]);
    const { texts: encoded, seconds, single } = eventNamed(run, "encoded");
    rows.push({
      name,
      texts: encoded,
      textsPerSecond: encoded / seconds,
      milliseconds: 1000 * median(single),
    });
    say(`encoding, ${name}: ${(encoded / seconds).toFixed(0)} texts/s`);
  }
  return rows;
}

/** Those of --test, again from the first where they are too few; else generated. */
function textsToEncode({ test, quick }, words) {
  const count = quick ? QUICK.texts : TEXTS;
  if (!test) return Array.from({ length: count }, (_, i) => generatedQuestion(words, i));
  const questions = readPairs(test, 0).flatMap(({ question1, question2 }) => [question1, question2]);
  if (questions.length === 0) throw new Error(`--test: no pairs in ${test}`);
  return Array.from({ length: count }, (_, i) => questions[i % questions.length]);
}
