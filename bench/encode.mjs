import { readFileSync } from "node:fs";
import { join } from "node:path";
import { eventNamed, runProgram } from "./process.mjs";
import { leastCosine, median, pairedRatio, summary } from "./statistics.mjs";

const BATCH = 32;
const MAX_LENGTH = 128;
/** Rounding alone: float32 on both sides leaves 0.9999999. */
const LEAST_FLOAT32 = 0.9999;
/** Below this a row does not compute the same model, however few bits it has. */
const LEAST_QUANTISED = 0.5;

const REFERENCE = "sentence-transformers";
const ONNX_FP32 = "ONNX Runtime, fp32";
const ONNX_INT8 = "ONNX Runtime, int8";

function allRows(onnx, extra) {
  return [
    { name: REFERENCE, side: "python", args: ["--backend=st"], float32: true },
    { name: ONNX_FP32, side: "python", args: onnxArgs(onnx, "fp32"), float32: true },
    { name: ONNX_INT8, side: "python", args: onnxArgs(onnx, "int8") },
    { name: "peft-train", side: "ours", load: {}, float32: true },
    { name: "peft-train, NF4", side: "ours", load: { quantize: "nf4" } },
    { name: "peft-train, int8", side: "ours", load: { quantize: "int8" } },
    ...extra.map(({ name, value }) => ({ name: `peft-train, ${name}`, side: "ours", load: value })),
  ];
}

const onnxArgs = (folder, kind) => ["--backend=onnx", `--onnx=${join(folder, `${kind}.onnx`)}`];

/** An option of `--ours_encode` that is not there is found by the small encoder. */
export async function tryEncodingRows({ root, options, folder, texts }) {
  const context = { root, options, texts, model: join(root, "data/encoder") };
  for (const { value } of options.ours_encode)
    await encode({ side: "ours", load: value }, context, join(folder, "vectors.bin"));
}

/** Many texts and single ones, through both sides in turn, after a look at whether their vectors agree. */
export async function benchEncoding({ root, python, options, folder, model, modelName, texts, say }) {
  const context = { root, python, options, model, texts };
  const every = allRows(await python.onnx(model), options.ours_encode);
  const rows = options.quick ? every.filter((row) => [ONNX_FP32, "peft-train"].includes(row.name)) : every;
  await agree([every[0], ...rows.filter((row) => row !== every[0])], context, folder, say);
  for (const row of rows) row.runs = [];
  for (let round = 1; round <= options.rounds; round++) {
    for (const row of rows) {
      const run = await measure(row, context);
      row.runs.push(run);
      say(
        `encode, round ${round}: ${row.name}: ${run.textsPerSecond.toFixed(0)} texts/s, ${run.milliseconds.toFixed(2)} ms`,
      );
    }
  }
  return { model: modelName, texts: options.texts, batch: BATCH, rows: compared(rows) };
}

/** Sets `cosine` of every row, the least against sentence-transformers. */
async function agree(rows, context, folder, say) {
  const { hidden_size: dimension } = JSON.parse(readFileSync(join(context.model, "config.json"), "utf8"));
  let reference;
  for (const row of rows) {
    const file = join(folder, "vectors.bin");
    await encode(row, context, file);
    const bytes = readFileSync(file);
    const vectors = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    reference ??= vectors.slice();
    row.cosine = leastCosine(vectors, reference, dimension);
    say(`encode: ${row.name}: least cosine ${row.cosine.toFixed(7)}`);
    const least = row.float32 ? LEAST_FLOAT32 : LEAST_QUANTISED;
    if (!(row.cosine >= least))
      throw new Error(
        `${row.name} and ${REFERENCE} do not agree: least cosine ${row.cosine}, expected ${least}; nothing was timed`,
      );
  }
}

function encode({ side, args, load }, { root, python, options, model, texts }, vectors) {
  if (side === "python") {
    const shared = [`--model=${model}`, `--texts=${texts}`, `--batch=${BATCH}`, `--max_length=${MAX_LENGTH}`];
    const what = vectors ? `--vectors=${vectors}` : `--single=${options.single}`;
    return python.run("encode.py", [...args, ...shared, what]);
  }
  const told = { model, load, texts, vectors, maxLength: MAX_LENGTH, single: options.single };
  return runProgram(process.execPath, [join(root, "bench/encode-ours.mjs"), JSON.stringify(told)]);
}

async function measure(row, context) {
  const run = await encode(row, context);
  const { texts, seconds, single } = eventNamed(run, "encoded");
  return {
    textsPerSecond: texts / seconds,
    milliseconds: median(single) * 1000,
    peakBytes: run.peakBytes,
  };
}

function compared(rows) {
  const measured = rows.map(({ name, side, args, load, cosine, runs }) => ({
    name,
    side,
    settings: args ?? load,
    cosine,
    textsPerSecond: summary(runs.map((run) => run.textsPerSecond)),
    milliseconds: summary(runs.map((run) => run.milliseconds)),
    peakBytes: runs.at(-1).peakBytes,
  }));
  const against = (row, name) => {
    const other = measured.find((candidate) => candidate.name === name);
    return other && pairedRatio(row.textsPerSecond.values, other.textsPerSecond.values);
  };
  return measured.map((row) => ({
    ...row,
    againstOnnx: against(row, ONNX_FP32),
    againstOnnxInt8: against(row, ONNX_INT8),
  }));
}
