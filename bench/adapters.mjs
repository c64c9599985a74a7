// What adapters cost while encoding: one batch of texts with one adapter for all, with that one merged into the base, and with texts spread
// over many.
//
//   node bench/adapters.mjs [--model DIR] [--adapters 100] [--texts 512] [--rounds 5] [--rank 8] [--storage nf4] [--threads 0]
//
// Without --model it makes one of e5-small's shape with random weights. Both sides are measured in turns in one process, all adapters
// loaded: the ratio is that of one round, its median over the rounds.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Tokenizer } from "../dist/data/tokenizer.js";
import { openModelFolder } from "../dist/model/folder.js";
import { loadEngine } from "../dist/native/load.js";
import { generatedQuestion, wholeWords } from "./generated.mjs";
import { writeE5Shape } from "./random-model.mjs";
import { median, pairedRatio } from "./statistics.mjs";
import { figure, markdownTable } from "./table.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    model: { type: "string" },
    adapters: { type: "string", default: "100" },
    texts: { type: "string", default: "512" },
    rounds: { type: "string", default: "5" },
    rank: { type: "string", default: "8" },
    storage: { type: "string", default: "float32" },
    threads: { type: "string", default: "0" },
  },
});
const [count, texts, rounds, rank] = [values.adapters, values.texts, values.rounds, values.rank].map(Number);
const folder = mkdtempSync(join(tmpdir(), "peft-train-bench-"));
const started = performance.now();

try {
  const model = values.model ?? writeE5Shape(join(folder, "model"), join(ROOT, "data/encoder"));
  const { weightsPath, shape, pooling } = await openModelFolder(model);
  const storage =
    values.storage === "float32"
      ? undefined
      : {
          format: values.storage,
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
    threads: Number(values.threads),
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
  const options = { normalize: true, microBatchTokens: 1024 };
  const one = { adapter: names[0], ...options };
  const each = {
    adapter: false,
    adapters: names,
    adapterOfText: Int32Array.from({ length: texts }, (_, i) => (i * 37) % count),
    ...options,
  };
  const base = { adapter: false, ...options };
  const merged = { adapter: "merged", ...options };
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
      `${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}; ${values.storage}, ${texts} texts of ${tokens} tokens, ${count} adapters of rank ${rank} on query, key and value`,
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
} finally {
  rmSync(folder, { recursive: true, force: true });
}
