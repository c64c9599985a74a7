// 100,000 small encode calls, 50 at a time, over the encoder that comes with the package: resident memory after each 10,000, and the
// longest that the event loop was held up. docs/service.md has a result. Takes some minutes:
//   npm run build && node test/stress/encode-calls.mjs [calls]
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { Encoder } from "../../dist/index.js";

const calls = Number(process.argv[2] ?? 100_000);
const encoder = await Encoder.load(fileURLToPath(new URL("../../data/encoder", import.meta.url)), {
  threads: 1,
});
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
let warm;
for (let done = 0; done < calls; ) {
  for (const end = done + calls / 10; done < end; done += 50) {
    await Promise.all(
      Array.from({ length: 50 }, (_, i) => encoder.encode([`how do I swim ${(done + i) % 1000}`])),
    );
  }
  const megabytes = process.memoryUsage.rss() / 1e6;
  warm ??= megabytes;
  console.log(`${done} calls: ${megabytes.toFixed(1)} MB`);
}
delay.disable();
const growth = process.memoryUsage.rss() / 1e6 - warm;
console.log(`growth after the first tenth: ${growth.toFixed(1)} MB`);
const milliseconds = (nanoseconds) => (nanoseconds / 1e6).toFixed(2);
console.log(
  `event loop delay: p50 ${milliseconds(delay.percentile(50))}, p99 ${milliseconds(delay.percentile(99))}, longest ${milliseconds(delay.max)} ms`,
);
await encoder.close();
process.exitCode = growth < 20 ? 0 : 1;
