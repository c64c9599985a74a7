// npm run check:avx512: the C++ tests with the kernels of AVX-512 and AVX-VNNI, on a processor that has AVX2 alone. Their source is compiled as it
// is, with the instructions from test/native/avx512 and test/native/avxvnni, into build/avx512. It is slow: some five minutes. Names of tests may be given.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { libtorchForBuild } from "./libtorch.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const build = join(root, "build", "avx512");
const libtorch = await libtorchForBuild();
const define = [
  `-DPEFT_TRAIN_TORCH=${libtorch}`,
  "-DPEFT_TRAIN_TESTS=ON",
  "-DPEFT_TRAIN_EMULATE_AVX512=ON",
  "-DCMAKE_BUILD_TYPE=Release",
];
run("cmake", ["-S", root, "-B", build, "--log-level=WARNING", ...define]);
run("cmake", ["--build", build, "--parallel", "2", "--target", "engine_tests"]);
run(join(build, "Release", "engine_tests"), process.argv.slice(2, 3), { GOMP_SPINCOUNT: "10000" });

function run(command, args, env = {}) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    env: { ...env, ...process.env },
  });
  if (status === 0) return;
  console.error(`check:avx512: ${command} ended with ${error?.message ?? signal ?? `status ${status}`}`);
  process.exit(1);
}
