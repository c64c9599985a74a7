// Compiles the addon into build/: finds libtorch, or fetches it into the cache, and hands it to CMake.
// With --tests it builds the C++ test program into build-tests/ instead.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const tests = process.argv.includes("--tests");
// A compiler on libtorch's headers takes about 1.5 GB.
const parallel = process.env.PEFT_TRAIN_BUILD_JOBS ?? String(Math.min(2, cpus().length));

const { libtorchForBuild } = await import("./libtorch.mjs");
const libtorch = await libtorchForBuild();

if (tests) {
  const out = join(root, "build-tests");
  run("cmake", ["-S", root, "-B", out, "-DPEFT_TRAIN_TESTS=ON", `-DPEFT_TRAIN_TORCH=${libtorch}`]);
  run("cmake", ["--build", out, "--parallel", parallel]);
} else {
  const cmakeJs = createRequire(import.meta.url).resolve("cmake-js/bin/cmake-js");
  const common = ["--directory", root, "--out", join(root, "build"), "--log-level", "warn"];
  // Not `compile`: that keeps the libtorch of an earlier configuration, and builds all again where a build fails.
  run(process.execPath, [cmakeJs, "configure", ...common, `--CDPEFT_TRAIN_TORCH=${libtorch}`]);
  run(process.execPath, [cmakeJs, "build", ...common, "--parallel", parallel]);
}

function run(command, args) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error?.code === "ENOENT") {
    console.error(
      `The build needs ${command}; it is not on PATH. Install CMake 3.20 or newer and a C++20 compiler.`,
    );
    process.exit(1);
  }
  if (error !== undefined) throw error;
  if (status !== 0) {
    console.error(`The native build failed: ${command} ended with ${signal ?? `status ${status}`}.`);
    process.exit(1);
  }
}
