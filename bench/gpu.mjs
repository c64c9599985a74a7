// npm run bench:gpu: for a machine with an NVIDIA GPU. Checks every kernel and the engine on it as test:gpu does, and then times
// the article's experiment (73,011 pairs, three epochs), encoding, and each kernel.
//
//   npm run bench:gpu -- [--train FILE] [--test FILE] [--model DIR] [--epochs 3] [--batch 64] [--max_length 70] [--seed 42]
//                        [--json FILE] [--quick]
//
// It needs the driver, CMake and a C++20 compiler; libtorch for CUDA is found or fetched. Without --train it generates as many
// pairs, about as long as questions are; without --model it takes random weights of e5-small's shape. --quick trains 20 steps and skips the
// checks. Status 2: there is no GPU, or an option is wrong. docs/cuda.md says more.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildGpuProgram, cudaLibtorch, requireGpu, run } from "../scripts/gpu.mjs";

const SCRIPT = "bench:gpu";
const root = resolve(fileURLToPath(new URL("..", import.meta.url)));
const options = parseOptions(process.argv.slice(2));
const gpu = requireGpu(SCRIPT);
const say = (text) => console.error(`· ${text}`);
const folder = mkdtempSync(join(tmpdir(), "peft-train-bench-gpu-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
])
  process.once(signal, () => process.exit(code));

try {
  await main();
} catch (error) {
  console.error(`${SCRIPT}: ${error.message}`);
  if (process.env.PEFT_TRAIN_DEBUG) console.error(error.stack);
  process.exitCode = 1;
}

async function main() {
  run(SCRIPT, "npm", ["run", "--silent", "build:ts"]);
  const libtorch = await cudaLibtorch();
  process.env.PEFT_TRAIN_LIBTORCH = libtorch; // of everything that follows
  run(SCRIPT, process.execPath, ["scripts/build-native.mjs"]);
  const program = buildGpuProgram(SCRIPT, libtorch);
  if (!options.quick) {
    say("checking kernels and engine against the CPU");
    run(SCRIPT, program, [libtorch]);
  }
  // They import dist/, which is there only now.
  const { machine } = await import("./machine.mjs");
  const { timeKernels, timeTraining, timeEncoding, prepare } = await import("./gpu-times.mjs");
  const { gpuMarkdown } = await import("./gpu-report.mjs");
  const context = { root, folder, say, device: "cuda", ...prepare(options, root, folder) };
  const sections = {
    kernels: await timeKernels(program, libtorch, say),
    training: await timeTraining(context, options),
    encoding: await timeEncoding(context, options),
  };
  const { data, model } = context;
  const date = new Date().toISOString().slice(0, 10);
  const result = { date, gpu, machine: machine(root), data: data.said, model: model.said, options, sections };
  if (options.json) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
  else console.log(JSON.stringify(result));
  console.log(gpuMarkdown(result));
}

function parseOptions(argv) {
  const text = (value) => ({ type: "string", default: value });
  try {
    const { values } = parseArgs({
      args: argv,
      options: {
        train: { type: "string" },
        test: { type: "string" },
        model: { type: "string" },
        epochs: text("3"),
        batch: text("64"),
        max_length: text("70"),
        seed: text("42"),
        json: { type: "string" },
        quick: { type: "boolean", default: false },
      },
    });
    for (const name of ["epochs", "batch", "max_length", "seed"]) {
      if (!/^[1-9][0-9]*$/.test(values[name]))
        throw new Error(`--${name}: expected a whole number of at least 1, found "${values[name]}"`);
      values[name] = Number(values[name]);
    }
    for (const name of ["train", "test"])
      if (values[name] !== undefined && !existsSync(values[name]))
        throw new Error(`--${name}: no file ${values[name]}`);
    if (values.model !== undefined && !existsSync(join(values.model, "config.json")))
      throw new Error(`--model: no config.json in ${values.model}`);
    return values;
  } catch (error) {
    console.error(`${SCRIPT}: ${error.message}`);
    process.exit(2);
  }
}
