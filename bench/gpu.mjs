// npm run bench:gpu: for a machine with an NVIDIA GPU. Checks every kernel and the engine on it as test:gpu does, and then times
// the article's experiment (73,011 pairs, three epochs), encoding, and each kernel.
//
//   npm run bench:gpu -- [--train FILE] [--test FILE] [--model DIR] [--epochs 3] [--batch 64] [--max_length 70] [--seed 42]
//                        [--json FILE] [--quick]
//
// It needs the driver, CMake and a C++20 compiler; libtorch for CUDA is found or fetched. Without --train it generates as many
// pairs, about as long as questions are; without --model it takes random weights of e5-small's shape. --quick trains 20 steps and skips the
// checks. Status 2: there is no GPU, or an option is wrong. docs/cuda.md says more.
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { buildGpuProgram, cudaLibtorch, requireGpu, run } from "../scripts/gpu.mjs";
import { existingFile, modelFolder, readArguments, wholeNumber, writableFile } from "./arguments.mjs";
import { benchmark } from "./benchmark.mjs";

const SCRIPT = "bench:gpu";
const root = resolve(fileURLToPath(new URL("..", import.meta.url)));
const say = (text) => console.error(`· ${text}`);

await benchmark(SCRIPT, readOptions, main);

async function main(options, folder) {
  const gpu = requireGpu(SCRIPT);
  run(SCRIPT, "npm", ["run", "--silent", "build:ts"]);
  // They import dist/, which is there only now.
  const { machine } = await import("./machine.mjs");
  const { timeKernels, timeTraining, timeEncoding, prepare } = await import("./gpu-times.mjs");
  const { gpuMarkdown } = await import("./gpu-report.mjs");
  const context = { root, folder, say, device: "cuda", ...prepare(options, root, folder) };
  const libtorch = await cudaLibtorch();
  process.env.PEFT_TRAIN_LIBTORCH = libtorch; // of everything that follows
  run(SCRIPT, process.execPath, ["scripts/build-native.mjs"]);
  const program = buildGpuProgram(SCRIPT, libtorch);
  if (!options.quick) {
    say("checking kernels and engine against the CPU");
    run(SCRIPT, program, [libtorch]);
  }
  const sections = {
    kernels: await timeKernels(program, libtorch, say),
    training: await timeTraining(context, options),
    encoding: await timeEncoding(context, options),
  };
  const { data, model } = context;
  const date = new Date().toISOString().slice(0, 10);
  const result = { date, gpu, machine: machine(root), data: data.said, model: model.said, options, sections };
  if (!options.json) console.log(JSON.stringify(result));
  console.log(gpuMarkdown(result));
  if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
}

function readOptions(argv) {
  const text = (value) => ({ type: "string", default: value });
  const values = readArguments(argv, {
    train: { type: "string" },
    test: { type: "string" },
    model: { type: "string" },
    epochs: text("3"),
    batch: text("64"),
    max_length: text("70"),
    seed: text("42"),
    json: { type: "string" },
    quick: { type: "boolean", default: false },
  });
  for (const [name, least] of Object.entries({ epochs: 1, batch: 1, max_length: 3, seed: 0 }))
    values[name] = wholeNumber(name, values[name], least);
  for (const name of ["train", "test"]) if (values[name] !== undefined) existingFile(name, values[name]);
  if (values.model !== undefined) modelFolder("model", values.model);
  if (values.json !== undefined) writableFile("json", values.json);
  return values;
}
