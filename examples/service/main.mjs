// An embedding service over one encoder and any number of adapters. Without arguments it serves the small encoder that comes with
// peft-train on http://127.0.0.1:8080. docs/service.md describes it.
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Encoder, ensureLibtorch } from "peft-train";
import { buildServer } from "./server.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: fileURLToPath(new URL("../../data/encoder", import.meta.url)) },
    adapter: { type: "string", multiple: true, default: [] }, // name=folder
    quantize: { type: "string" },
    threads: { type: "string", default: "0" },
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "8080" },
    "max-batch-tokens": { type: "string" },
    "max-wait-ms": { type: "string" },
    "max-queue": { type: "string", default: "512" },
    "no-batching": { type: "boolean", default: false },
  },
});

const number = (text) => (text === undefined ? undefined : Number(text));
const stopped = Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);
const server = buildServer();
await server.listen({ host: values.host, port: Number(values.port) });
console.log(`listening on http://${values.host}:${server.server.address().port}`);

await ensureLibtorch();
const encoder = await Encoder.load(values.model, {
  quantize: values.quantize,
  threads: Number(values.threads),
  batching: {
    together: !values["no-batching"],
    maxBatchTokens: number(values["max-batch-tokens"]),
    maxWaitMs: number(values["max-wait-ms"]),
    maxQueue: number(values["max-queue"]),
  },
});
for (const adapter of values.adapter) {
  const [name, folder] = adapter.split(/=(.*)/s);
  if (!folder) throw new Error(`--adapter ${adapter}: expected name=folder`);
  await encoder.addAdapter(name, folder);
}
server.serve(encoder);
console.log(
  `ready: ${encoder.model.name}, adapters: ${encoder.adapters.map(({ name }) => name).join(", ") || "none"}`,
);

await stopped;
await server.close(); // takes no more requests and waits for those that run
await encoder.close();
console.log("stopped");
