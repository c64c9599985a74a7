import { createWriteStream, rmSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { writePairs } from "./data.mjs";
import { generatedText, wholeWords } from "./generated.mjs";
import { eventNamed, runProgram } from "./process.mjs";
import { steadyRate } from "./train.mjs";

/** Words of a generated question: with the prefix and the two special tokens the length of a real one. */
const QUESTION_WORDS = 9;
/** Of a step, whatever the length of its texts. */
const STEP_TOKENS = 8192;
const WARM = 1;

/** How cost grows with the number of pairs and with the length of the texts. */
export async function benchScale({ root, options, folder, model, modelName, say }) {
  const words = wholeWords(model);
  const pairs = [];
  for (const count of options.scale_pairs) {
    pairs.push(await reading(count, { root, options, folder, model, words }));
    const { seconds, tokens } = pairs.at(-1);
    say(`scale: ${count} pairs, ${tokens} tokens: ${seconds.toFixed(2)} s`);
  }
  const lengths = [];
  for (const length of options.scale_lengths) {
    lengths.push(await training(length, { root, options, folder, model, words }));
    say(`scale: ${length} tokens a text: ${lengths.at(-1).microsecondsAToken.toFixed(1)} us a token`);
  }
  return { model: modelName, stepTokens: STEP_TOKENS, pairs, lengths };
}

async function reading(count, { root, options, folder, model, words }) {
  const file = join(folder, "generated.csv");
  await pipeline(Readable.from(generatedRows(count, words)), createWriteStream(file));
  const script = join(root, "bench/read-pairs.mjs");
  const run = await runProgram(process.execPath, [script, model, file, String(options.max_length)]);
  rmSync(file);
  const { seconds, tokens } = eventNamed(run, "read");
  return { pairs: count, tokens, seconds, peakBytes: run.peakBytes };
}

function* generatedRows(count, words) {
  yield "question1,question2,is_duplicate\n";
  for (let i = 0; i < count; i++)
    yield `${generatedText(words, 2 * i, QUESTION_WORDS)},${generatedText(words, 2 * i + 1, QUESTION_WORDS)},${i % 2}\n`;
}

async function training(length, { root, options, folder, model, words }) {
  const batch = Math.max(1, Math.round(STEP_TOKENS / (2 * length)));
  const steps = WARM + options.rounds;
  const file = join(folder, "generated.csv");
  const rows = Array.from({ length: batch * steps }, (_, i) => ({
    question1: generatedText(words, 2 * i, length - 2),
    question2: generatedText(words, 2 * i + 1, length - 2),
    is_duplicate: i % 2,
  }));
  writePairs(file, rows);
  const out = join(folder, "out");
  const run = await runProgram(process.execPath, [
    join(root, "bin/peft-train.js"),
    "--json",
    `--model_name_or_path=${model}`,
    `--dataset_name=${file}`,
    "--prefix=",
    `--max_length=${length}`,
    `--per_device_train_batch_size=${batch}`,
    "--num_train_epochs=1",
    `--seed=${options.seed}`,
    `--output_dir=${out}`,
  ]);
  rmSync(out, { recursive: true, force: true });
  const secondsAPair = 1 / steadyRate(run.events, WARM);
  return { length, batch, microsecondsAToken: (secondsAPair * 1e6) / (2 * length), peakBytes: run.peakBytes };
}
