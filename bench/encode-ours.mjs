// Encodes texts with the library, in a process of its own; one JSON line with what was measured.
//
//   node bench/encode-ours.mjs '{"model":DIR,"load":{},"texts":FILE,"maxLength":128,"single":200}'
//
// With "vectors":FILE it writes float32 vectors there and times nothing.
import { readFileSync, writeFileSync } from "node:fs";
import { Encoder } from "../dist/index.js";

const BATCH_WARM = 64;
const SINGLE_WARM = 20;

try {
  console.log(JSON.stringify(await main(JSON.parse(process.argv[2]))));
} catch (error) {
  console.log(JSON.stringify({ event: "error", message: error.message }));
  process.exitCode = 1;
}

async function main({ model, load, texts: file, vectors, maxLength, single }) {
  const texts = JSON.parse(readFileSync(file, "utf8"));
  const encoder = await Encoder.load(model, load);
  const encode = (some) => encoder.encode(some, { prefix: "", maxLength });
  if (vectors) {
    const rows = await encode(texts);
    writeFileSync(vectors, Buffer.concat(rows.map((row) => Buffer.from(Float32Array.from(row).buffer))));
    await encoder.close();
    return { event: "written" };
  }
  await encode(texts.slice(0, BATCH_WARM));
  const together = await seconds(() => encode(texts));
  for (const text of texts.slice(0, SINGLE_WARM)) await encode([text]);
  const alone = [];
  for (const text of texts.slice(0, single)) alone.push(await seconds(() => encode([text])));
  await encoder.close();
  return { event: "encoded", texts: texts.length, seconds: together, single: alone };
}

async function seconds(work) {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}
