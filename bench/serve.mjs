// npm run bench:serve: examples/service under load of 1, 8 and 64 clients, each of which sends one text at a time to one of three
// adapters as fast as it is answered; with batching and without. Every answer is compared with the vector that the library gives for that
// text and adapter. Options: --seconds=8 --model=FOLDER --clients=1,8,64
import { fileURLToPath } from "node:url";
import { Pool } from "undici";
import { readTexts } from "../dist/data/texts.js";
import { Encoder } from "../dist/index.js";
import { modelFolder, readArguments, wholeNumber, wholeNumbers } from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";
import { makeAdapters } from "./make-adapters.mjs";
import { startService } from "./service-process.mjs";

const data = (name) => fileURLToPath(new URL(`../data/${name}`, import.meta.url));
const NAMES = ["red", "green", "blue"];
/** No multiple of the adapters, so that each text goes to each of them. */
const TEXTS = 301;

await benchmark("bench:serve", readOptions, main);

async function main(options, folder) {
  const adapters = await makeAdapters(options.model, data("pairs/train.csv"), folder, NAMES);
  const texts = (await readTexts(data("pairs/test.csv"), "question1")).slice(0, TEXTS);
  const expected = await expectedVectors(options.model, adapters, texts);
  console.log("| batching | clients | requests/s | p50 ms | p95 ms | p99 ms | wrong | failed |");
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const batching of [true, false]) {
    const flags = [`--model=${options.model}`, ...(batching ? [] : ["--no-batching"])];
    const service = await startService(flags, { adapters });
    for (const clients of options.clients) {
      await load(service.url, clients, 1, texts, expected); // warm
      const result = await load(service.url, clients, options.seconds, texts, expected);
      const cells = [batching ? "on" : "off", clients, ...row(result), result.wrong, result.failed];
      console.log(`| ${cells.join(" | ")} |`);
      if (result.wrong + result.failed > 0) process.exitCode = 1;
    }
    const { code, signal } = await service.stop();
    if (code !== 0) throw new Error(`the service ended with ${code ?? signal}`);
  }
}

function readOptions(argv) {
  const text = (value) => ({ type: "string", default: value });
  const values = readArguments(argv, {
    seconds: text("8"),
    model: text(data("encoder")),
    clients: text("1,8,64"),
  });
  return {
    seconds: wholeNumber("seconds", values.seconds, 1),
    model: modelFolder("model", values.model),
    clients: wholeNumbers("clients", values.clients, 1),
  };
}

/** Base64 of each text's vector, by adapter. */
async function expectedVectors(model, adapters, texts) {
  const encoder = await Encoder.load(model);
  const expected = new Map();
  for (const [name, path] of adapters) {
    await encoder.addAdapter(name, path);
    const vectors = await encoder.encode(texts, { adapter: name });
    expected.set(
      name,
      vectors.map((v) => Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString("base64")),
    );
  }
  await encoder.close();
  return expected;
}

async function load(url, clients, seconds, texts, expected) {
  const pool = new Pool(url, { connections: clients, pipelining: 1 });
  const latencies = [];
  let [wrong, failed] = [0, 0];
  const startedAt = performance.now();
  const client = async (number) => {
    for (let i = number; performance.now() - startedAt < 1000 * seconds; i += clients) {
      const model = NAMES[i % NAMES.length];
      const place = i % texts.length;
      const askedAt = performance.now();
      const body = JSON.stringify({ model, input: texts[place], encoding_format: "base64" });
      const headers = { "content-type": "application/json" };
      const answer = await pool.request({ path: "/v1/embeddings", method: "POST", headers, body });
      const json = await answer.body.json();
      latencies.push(performance.now() - askedAt);
      if (answer.statusCode !== 200) failed++;
      else if (json.model !== model || json.data[0].embedding !== expected.get(model)[place]) wrong++;
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, number) => client(number)));
  const elapsed = (performance.now() - startedAt) / 1000;
  await pool.close();
  return { latencies: latencies.sort((a, b) => a - b), elapsed, wrong, failed };
}

function row({ latencies, elapsed }) {
  const at = (share) =>
    latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))].toFixed(1);
  return [(latencies.length / elapsed).toFixed(0), at(0.5), at(0.95), at(0.99)];
}
