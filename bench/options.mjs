import { join } from "node:path";
import {
  existingFile,
  modelFolder,
  readArguments,
  someOf,
  UsageError,
  wholeNumber,
  wholeNumbers,
  writableFile,
} from "./arguments.mjs";

export const SECTIONS = ["train", "encode", "start", "scale"];
/** Without --only; `scale` takes long. */
const USUAL = ["train", "encode", "start"];

/** What `npm run bench:quick` measures unless it is told otherwise. */
const QUICK = { rounds: 1, warm: 1, steps: 2, texts: 300, single: 50, starts: 5 };
const FULL = { rounds: 3, warm: 2, steps: 6, texts: 2000, single: 200, starts: 5 };

/** @param {string[]} argv @throws UsageError */
export function parseBenchOptions(argv, root) {
  const text = { type: "string" };
  const flag = { type: "boolean", default: false };
  const values = readArguments(argv, {
    quick: flag,
    only: { ...text, default: USUAL.join(",") },
    rounds: text,
    warm: text,
    steps: text,
    texts: text,
    single: text,
    starts: text,
    batch: { ...text, default: "64" },
    max_length: { ...text, default: "70" },
    seed: { ...text, default: "42" },
    train: { ...text, default: join(root, "data/pairs/train.csv") },
    test: { ...text, default: join(root, "data/pairs/test.csv") },
    model: text,
    train_model: text,
    ours: { ...text, multiple: true, default: [] },
    ours_encode: { ...text, multiple: true, default: [] },
    search: flag,
    scale: flag,
    scale_pairs: { ...text, default: "1000,10000,100000,1000000" },
    scale_lengths: { ...text, default: "16,32,64,128,256,512" },
    json: text,
    write: flag,
  });
  const options = { ...values };
  for (const [name, value] of Object.entries(values.quick ? QUICK : FULL))
    options[name] = values[name] === undefined ? value : wholeNumber(name, values[name], 1);
  options.batch = wholeNumber("batch", values.batch, 1);
  options.max_length = wholeNumber("max_length", values.max_length, 3); // [CLS] and [SEP] counted
  options.seed = wholeNumber("seed", values.seed, 0);
  options.scale_pairs = wholeNumbers("scale_pairs", values.scale_pairs, 1);
  options.scale_lengths = wholeNumbers("scale_lengths", values.scale_lengths, 3);
  options.only = someOf("only", values.only, SECTIONS);
  if (values.scale && !options.only.includes("scale")) options.only.push("scale");
  options.ours = values.ours.map((item) => named("ours", item, (rest) => rest.trim().split(/\s+/)));
  options.ours_encode = values.ours_encode.map((item) => named("ours_encode", item, loadOptions));
  for (const name of ["train", "test"]) existingFile(name, options[name]);
  for (const name of ["model", "train_model"])
    if (options[name] !== undefined) modelFolder(name, options[name]);
  if (options.json !== undefined) writableFile("json", options.json);
  if (values.quick && values.write)
    throw new UsageError("--quick measures too little to be written down; leave out --write");
  return options;
}

/** `name=rest`; the rest may hold more of them. */
function named(option, item, parse) {
  const at = item.indexOf("=");
  const rest = item.slice(at + 1);
  if (at <= 0 || rest.trim() === "") throw new UsageError(`--${option}: expected NAME=..., found "${item}"`);
  return { name: item.slice(0, at), value: parse(rest, item) };
}

function loadOptions(text) {
  try {
    const value = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // told below
  }
  throw new UsageError(`--ours_encode: expected options of Encoder.load as a JSON object, found ${text}`);
}
