// npm run test:gpu: for a machine with an NVIDIA GPU. Checks every CUDA kernel on it against plain calls on the CPU, and
// times them. It needs the driver, CMake and a C++20 compiler, and does the rest itself:
//
//   1. makes sure that there is a GPU;
//   2. finds a libtorch for CUDA (PEFT_TRAIN_LIBTORCH, else the cache folder), or fetches it by pip (2.5 GB);
//   3. compiles the engine and the test program against it into build/gpu;
//   4. runs the program: the kernels are compiled for the GPU by libtorch's own NVRTC.
//
// It ends with 0 where all agree, 1 where something does not or went wrong, and 2 where there is no GPU.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const NO_GPU = 2;
const root = fileURLToPath(new URL("..", import.meta.url));

const gpus = listGpus();
if (gpus === undefined) {
  console.error("test:gpu needs an NVIDIA GPU with its driver, and found none: nvidia-smi -L names no GPU.");
  console.error(
    "Without one, npm test runs the text of the kernels on the CPU, and npm run check:cuda compiles it.",
  );
  process.exit(NO_GPU);
}
console.log(gpus);

run("npm", ["run", "--silent", "build:ts"]);
const { ensureLibtorch } = await import(new URL("../dist/setup/install.js", import.meta.url).href);
const { SetupDisplay } = await import(new URL("../dist/cli/setup-display.js", import.meta.url).href);
const libtorch = await findLibtorch();
console.log(`libtorch for CUDA: ${libtorch}`);

const build = join(root, "build", "gpu");
const define = [`-DPEFT_TRAIN_TORCH=${libtorch}`, "-DPEFT_TRAIN_GPU_TESTS=ON", "-DCMAKE_BUILD_TYPE=Release"];
run("cmake", ["-S", root, "-B", build, "--log-level=WARNING", ...define]);
run("cmake", ["--build", build, "--parallel", "2", "--target", "gpu_tests"]);
run(join(build, "Release", "gpu_tests"), [libtorch]);

/** What nvidia-smi, which comes with the driver, prints; undefined where there is no GPU. */
function listGpus() {
  const { status, stdout } = spawnSync("nvidia-smi", ["-L"], { encoding: "utf8" });
  if (status === 0 && stdout.includes("GPU ")) return stdout.trim();
  // Containers may have the driver without its tools.
  return existsSync("/dev/nvidia0") || existsSync("/dev/dxg")
    ? "A GPU, without nvidia-smi to name it"
    : undefined;
}

async function findLibtorch() {
  const display = new SetupDisplay();
  try {
    return await ensureLibtorch({ device: "cuda", forBuild: true, onProgress: display.update });
  } catch (error) {
    display[Symbol.dispose]();
    console.error(`${error.code ?? error.name}: ${error.message}`);
    if (error.hint) console.error(error.hint);
    process.exit(1);
  } finally {
    display[Symbol.dispose]();
  }
}

function run(command, args) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (status === 0) return;
  console.error(`test:gpu failed: ${command} ended with ${error?.message ?? signal ?? `status ${status}`}`);
  process.exit(1);
}
