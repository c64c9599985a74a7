import { readFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { RECORD_FILE } from "../../adapter/record.js";
import { readTexts } from "../../data/texts.js";
import { Encoder } from "../../encoder.js";
import type { OptionName } from "../../train/options/option-table.js";
import { type ResolvedTrainOptions, resolveOptions } from "../../train/options/options.js";
import { isEarlierRun } from "../../train/output/output-content.js";
import { shellQuote } from "../arguments.js";
import { nextSteps } from "../display/next-commands.js";
import { shortPath, table } from "../display/terminal.js";
import { TrainReport } from "../display/train-report.js";
import { type FlagValues, readFlags } from "../flags.js";
import { prepareEngine } from "./engine.js";
import { reportFor, trainWithReport } from "./train.js";

const DATA = fileURLToPath(new URL("../../../data", import.meta.url));

/** As data/README.md measured it. */
const DEMO_OPTIONS: Partial<Record<OptionName, unknown>> = {
  model_name_or_path: path.join(DATA, "encoder"),
  dataset_name: path.join(DATA, "pairs", "train.csv"),
  eval_dataset_name: path.join(DATA, "pairs", "test.csv"),
  learning_rate: 2e-3,
  num_train_epochs: 2,
  per_device_train_batch_size: 32,
  logging_steps: 50,
};

/** Pairs of each class that are shown before and after. */
const SHOWN = 3;

/** `peft-train demo` */
export async function runDemo(args: FlagValues): Promise<void> {
  const given = readFlags(args, ["output_dir", "seed", "num_threads"]);
  const outputDir = (given.output_dir as string | undefined) ?? "peft-train-demo";
  const options = resolveOptions({
    ...DEMO_OPTIONS,
    ...given,
    output_dir: outputDir,
    overwrite_output_dir: await isEarlierDemo(outputDir),
  });
  const report = reportFor(args, () => new TrainReport(options, () => []));
  const result = await trainWithReport(options, report);
  if (result.stopped || args.json === true || args.quiet === true) return;
  process.stdout.write(
    `${await examples(options, result.outputDir)}\n${nextSteps(nextCommands(outputDir))}\n`,
  );
}

/** A run on the demo's pairs may be replaced by another; a run on the user's own may not. */
async function isEarlierDemo(folder: string): Promise<boolean> {
  if (!(await isEarlierRun(folder))) return false;
  const record = await readFile(path.join(folder, RECORD_FILE), "utf8").catch(() => "{}");
  return record.includes(JSON.stringify(DEMO_OPTIONS.dataset_name));
}

/** The test pairs that training moved most towards their label, with their cosine before and after. */
async function examples(options: ResolvedTrainOptions, adapter: string): Promise<string> {
  const file = options.evalDatasetName as string;
  const [first, second, labels] = await Promise.all(
    [options.question1Column, options.question2Column, options.labelColumn].map((column) =>
      readTexts(file, column),
    ),
  );
  if (first === undefined || second === undefined || labels === undefined) return "";
  await using encoder = await Encoder.load(options.modelNameOrPath, {
    adapter,
    engine: () => prepareEngine(options.device),
  });
  const before = await encoder.similarity(first, second, { adapter: false });
  const after = await encoder.similarity(first, second);
  const rows = ["1", "0"].flatMap((label) => {
    const gain = (i: number): number =>
      ((after[i] as number) - (before[i] as number)) * (label === "1" ? 1 : -1);
    return labels
      .flatMap((found, i) => (found === label ? [i] : []))
      .sort((a, b) => gain(b) - gain(a))
      .slice(0, SHOWN);
  });
  return table(
    ["Test pairs that moved most", "Same?", "Before", "After"],
    rows.map((i) => [
      `${first[i]}\n${second[i]}`,
      labels[i] === "1" ? "yes" : "no",
      (before[i] as number).toFixed(3),
      (after[i] as number).toFixed(3),
    ]),
    { right: [2, 3], widths: [72, null, null, null], lines: true },
  );
}

function nextCommands(outputDir: string): string[] {
  const encoder = shellQuote(shortPath(path.join(DATA, "encoder")));
  const test = shellQuote(shortPath(path.join(DATA, "pairs", "test.csv")));
  const adapter = shellQuote(outputDir);
  return [
    `npx peft-train eval --model_name_or_path=${encoder} --adapter=${adapter} --dataset_name=${test}`,
    `echo "How do I learn to swim?" > texts.txt && npx peft-train encode --model_name_or_path=${encoder} --adapter=${adapter} --input=texts.txt --output=vectors.npy`,
    "npx peft-train --help   # and then with a model and pairs of your own",
  ];
}
