// Reads and tokenises a file of pairs as a training run does before its first step; one JSON line.
//
//   node bench/read-pairs.mjs MODEL_FOLDER FILE MAX_LENGTH
import { loadExamples } from "../dist/data/examples.js";
import { Tokenizer } from "../dist/data/tokenizer.js";

const [model, path, maxLength] = process.argv.slice(2);
const tokenizer = await Tokenizer.load(model);
const startedAt = performance.now();
const source = { path, question1Prefix: "query: ", question2Prefix: "query: ", maxLength: Number(maxLength) };
const { count, ids } = await loadExamples(source, tokenizer);
const seconds = (performance.now() - startedAt) / 1000;
console.log(JSON.stringify({ event: "read", pairs: count, tokens: ids.length, seconds }));
