// How long the event loop is held up while one large call is encoded: perf_hooks.monitorEventLoopDelay, of which the timer's own
// resolution of 1 ms is taken off.
//
//   node bench/event-loop.mjs [--model DIR] [--texts 20000]
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { Encoder } from "../dist/index.js";
import { modelFolder, readArguments, wholeNumber } from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";

await benchmark("bench/event-loop.mjs", readOptions, main);

async function main({ model, texts: count }) {
  const encoder = await Encoder.load(model);
  const texts = Array.from({ length: count }, (_, i) =>
    // The number makes each another: repeats would not be encoded.
    [i, ...Array.from({ length: 11 }, (_, j) => `w${((i * 7 + j * j) % 5000).toString(36)}`)].join(" "),
  );
  await encoder.encode(texts.slice(0, 200));
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const startedAt = performance.now();
  const large = encoder.encode(texts);
  const small = [];
  for (let running = true; running; ) {
    const askedAt = performance.now();
    running = await Promise.race([
      large.then(() => false),
      encoder.encode(["how do I swim"]).then(() => true),
    ]);
    if (running) small.push(performance.now() - askedAt);
  }
  delay.disable();
  const seconds = (performance.now() - startedAt) / 1000;
  const beyond = (percent) => Math.max(0, delay.percentile(percent) / 1e6 - 1).toFixed(2);
  small.sort((a, b) => a - b);
  console.log(`${count} texts in ${seconds.toFixed(1)} s, beside ${small.length} calls of one text each:`);
  console.log(
    `event loop held up: p50 ${beyond(50)} ms, p99 ${beyond(99)} ms, p99.9 ${beyond(99.9)} ms, longest ${beyond(100)} ms`,
  );
  console.log(
    `a small call: median ${small[small.length >> 1]?.toFixed(1)} ms, longest ${small.at(-1)?.toFixed(1)} ms`,
  );
  await encoder.close();
}

function readOptions(argv) {
  const values = readArguments(argv, {
    model: { type: "string", default: fileURLToPath(new URL("../data/encoder", import.meta.url)) },
    texts: { type: "string", default: "20000" },
  });
  return { model: modelFolder("model", values.model), texts: wholeNumber("texts", values.texts, 1) };
}
