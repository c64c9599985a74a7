// Compiles the addon into build/: finds libtorch, or fetches it into the cache, and hands it to CMake.
// With --tests the C++ test program too.
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

const cmakeJs = findCmakeJs();
const common = ["--directory", root, "--out", join(root, "build"), "--log-level", "warn"];
const define = [`--CDPEFT_TRAIN_TORCH=${libtorch}`, `--CDPEFT_TRAIN_TESTS=${tests ? "ON" : "OFF"}`];
// Not `compile`: that keeps the libtorch of an earlier configuration, and builds all again where a build fails.
run("configure", define);
run("build", ["--parallel", parallel]);

function findCmakeJs() {
  try {
    return createRequire(import.meta.url).resolve("cmake-js/bin/cmake-js");
  } catch {
    console.error(`cmake-js is not installed. Run: npm install --no-save cmake-js@8`);
    return process.exit(1);
  }
}

function run(command, args) {
  const { status, signal, error } = spawnSync(process.execPath, [cmakeJs, command, ...common, ...args], {
    cwd: root,
    stdio: "inherit",
  });
  if (error !== undefined) throw error;
  if (status === 0) return;
  console.error(`The native build failed: cmake-js ${command} ended with ${signal ?? `status ${status}`}.`);
  console.error("It takes CMake 3.20 or newer and a C++20 compiler with OpenMP (GCC 11, Clang 14).");
  process.exit(1);
}
