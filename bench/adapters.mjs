// What adapters cost while encoding: one batch of texts with one adapter for all, with that one merged into the base, and with texts spread
// over many.
//
//   node bench/adapters.mjs [--model DIR] [--adapters 100] [--texts 512] [--rounds 5] [--rank 8] [--storage nf4] [--threads 0]
//
// Without --model it makes one of e5-small's shape with random weights. Both sides are measured in turns in one process, all adapters
// loaded: the ratio is that of one round, its median over the rounds.
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "../dist/data/tokenizer.js";
import { openModelFolder } from "../dist/model/folder.js";
import { loadEngine } from "../dist/native/load.js";
import { modelFolder, oneOf, readArguments, wholeNumber } from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";
import { generatedQuestion, wholeWords } from "./generated.mjs";
import { writeE5Shape } from "./random-model.mjs";
import { median, pairedRatio } from "./statistics.mjs";
import { figure, markdownTable } from "./table.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
/** Of the frozen weights; float32 leaves them as the file has them. */
const STORAGES = ["float32", "float16", "bfloat16", "nf4", "fp4", "int8"];

await benchmark("bench/adapters.mjs", readOptions, main);

function readOptions(argv) {
  const text = (value) => ({ type: "string", default: value });
  const values = readArguments(argv, {
    model: { type: "string" },
    adapters: text("100"),
    texts: text("512"),
    rounds: text("5"),
    rank: text("8"),
    storage: text("float32"),
    threads: text("0"),
  });
  for (const [name, least] of Object.entries({ adapters: 1, texts: 1, rounds: 1, rank: 1, threads: 0 }))
    values[name] = wholeNumber(name, values[name], least);
  oneOf("storage", values.storage, STORAGES);
  if (values.model !== undefined) modelFolder("model", values.model);
  return values;
}

async function main(options, folder) {
  const { adapters: count, texts, rounds, rank } = options;
  const started = performance.now();
  const model = options.model ?? writeE5Shape(join(folder, "model"), join(ROOT, "data/encoder"));
  const { weightsPath, shape, pooling } = await openModelFolder(model);
  const storage =
    options.storage === "float32"
      ? undefined
      : {
          format: options.storage,
          blockSize: 64,
          doubleQuant: false,
          outlierFraction: 0,
          outlierThreshold: 0,
        };
  const encoder = await loadEngine().open({
    weightsPath,
    shape,
    pooling,
    device: "cpu",
    threads: options.threads,
    ...(storage && { storage }),
  });
  const modules = Array.from({ length: shape.numLayers }, (_, layer) =>
    ["query", "key", "value"].map((name) => ({
      name: `encoder.layer.${layer}.attention.self.${name}`,
      rank,
      scale: 2,
    })),
  ).flat();
  const names = Array.from({ length: count }, (_, i) => `tenant-${i}`);
  const rss = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? 0) * 1024;
  const before = rss();
  // B is drawn too: a fresh adapter whose B is zero would be no test of what comes out.
  for (const [i, name] of names.entries())
    await encoder.createAdapter({ modules, dropout: 0, init: { kind: "uniform" } }, i, name);
  const loadedBytes = encoder.memory(1024, false).adapter;
  const startedMerge = performance.now();
  const merge = await encoder.mergeAdapter(names[0], "merged", false);
  const mergeSeconds = (performance.now() - startedMerge) / 1000;

  const words = wholeWords(model);
  const tokenizer = await Tokenizer.load(model);
  const batch = await tokenizer.encode(
    Array.from({ length: texts }, (_, i) => generatedQuestion(words, i)),
    128,
  );
  const how = { normalize: true, microBatchTokens: 1024 };
  const one = { adapter: names[0], ...how };
  const each = {
    adapter: false,
    adapters: names,
    adapterOfText: Int32Array.from({ length: texts }, (_, i) => (i * 37) % count),
    ...how,
  };
  const base = { adapter: false, ...how };
  const merged = { adapter: "merged", ...how };
  const seconds = { base: [], merged: [], one: [], each: [] };
  const time = async (into, choice) => {
    // Processor time: on a machine that others use too, the clock measures them.
    const before = process.cpuUsage();
    await encoder.encode(batch, choice);
    const { user, system } = process.cpuUsage(before);
    into?.push((user + system) / 1e6);
  };
  for (const choice of [base, merged, one, each]) await time(undefined, choice);
  for (let round = 0; round < rounds; round++) {
    await time(seconds.one, one);
    await time(seconds.each, each);
    await time(seconds.base, base);
    await time(seconds.merged, merged);
  }
  await encoder.removeAdapter("merged");
  const usedBytes = encoder.memory(1024, false).adapter;
  const parameters = encoder.adapters()[0].parameters;
  const grown = rss() - before;
  await encoder.close();
  const tokens = batch.ids.length;
  const row = (name, all) => [name, figure(median(all) * 1000), figure(tokens / median(all))];
  console.log(
    [
      `${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}; ${options.storage}, ${texts} texts of ${tokens} tokens, ${count} adapters of rank ${rank} on query, key and value`,
      "",
      markdownTable(
        ["texts encoded with", "ms of processor time", "tokens a second of it"],
        [
          row("the base model", seconds.base),
          row("one adapter, merged", seconds.merged),
          row("one adapter", seconds.one),
          row(`${count} adapters`, seconds.each),
        ],
      ),
      "",
      `speed with ${count} adapters over that with one: ${figure(pairedRatio(seconds.one, seconds.each).median)}`,
      `time merged over that of the base: ${figure(pairedRatio(seconds.merged, seconds.base).median)}; merged weights: ${merge.bytes} bytes, made in ${figure(mergeSeconds)} s`,
      `an adapter: ${parameters} parameters, ${4 * parameters} bytes; loaded ${Math.round(loadedBytes / count)}, used ${Math.round(usedBytes / count)} bytes; resident memory grew by ${Math.round(grown / count)} bytes an adapter`,
      `took ${figure((performance.now() - started) / 1000)} s`,
    ].join("\n"),
  );
}
