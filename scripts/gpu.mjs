// What test:gpu and bench:gpu begin with: a GPU, a libtorch for CUDA, and the program of the CUDA kernels compiled against it.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const NO_GPU = 2;
const WRONG_USE = 2;
const root = fileURLToPath(new URL("..", import.meta.url));

/** Ends the process with 2 where it was given something. */
export function requireNoArguments(script) {
  const [first] = process.argv.slice(2);
  if (first === undefined) return;
  console.error(`${script} takes no arguments, and was given ${first}.`);
  process.exit(WRONG_USE);
}

/** What nvidia-smi, which comes with the driver, says of the GPUs. Ends the process with 2 where there is none. */
export function requireGpu(script) {
  const { status, stdout } = spawnSync("nvidia-smi", ["-L"], { encoding: "utf8" });
  if (status === 0 && stdout.includes("GPU ")) return stdout.trim();
  // Containers may have the driver without its tools.
  if (existsSync("/dev/nvidia0") || existsSync("/dev/dxg")) return "A GPU, without nvidia-smi to name it";
  console.error(`${script} needs an NVIDIA GPU with its driver, and found none: nvidia-smi -L names no GPU.`);
  console.error(
    "Without one, npm test runs the text of the kernels on the CPU, and npm run check:cuda compiles it.",
  );
  process.exit(NO_GPU);
}

/** The folder of a libtorch for CUDA: PEFT_TRAIN_LIBTORCH, else the cache folder, else fetched by pip (2.5 GB). */
export async function cudaLibtorch() {
  const { ensureLibtorch } = await import(new URL("../dist/setup/install.js", import.meta.url).href);
  const { SetupDisplay } = await import(
    new URL("../dist/cli/display/setup-display.js", import.meta.url).href
  );
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

/** Compiles test/native/cuda/gpu_main.cc into build/gpu. Gives the program. */
export function buildGpuProgram(script, libtorch) {
  const build = join(root, "build", "gpu");
  const define = [
    `-DPEFT_TRAIN_TORCH=${libtorch}`,
    "-DPEFT_TRAIN_GPU_TESTS=ON",
    "-DCMAKE_BUILD_TYPE=Release",
  ];
  run(script, "cmake", ["-S", root, "-B", build, "--log-level=WARNING", ...define]);
  run(script, "cmake", ["--build", build, "--parallel", "2", "--target", "gpu_tests"]);
  return join(build, "Release", "gpu_tests");
}

/** Runs a command of the set-up; ends the process with 1 where it fails. Its output goes to stderr. */
export function run(script, command, args, env = {}) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ["ignore", process.stderr.fd, "inherit"],
  });
  if (status === 0) return;
  console.error(`${script} failed: ${command} ended with ${error?.message ?? signal ?? `status ${status}`}`);
  process.exit(1);
}
