import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { skips } from "../support/skips.js";

// What the scripts say where there is neither a GPU nor a compiler for one.

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "peft-train-cuda-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function run(
  script: string,
  env: NodeJS.ProcessEnv,
  ...args: string[]
): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, script), ...args], {
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  return { status, output: stdout + stderr };
}

test("check:cuda is skipped in words, not passed, where no NVRTC can be had", () => {
  const { status, output } = run("scripts/check-cuda.mjs", {
    PEFT_TRAIN_NVRTC: "",
    PEFT_TRAIN_CACHE: folder,
    PEFT_TRAIN_LIBTORCH: join(folder, "no-libtorch"),
    PEFT_TRAIN_PYTHON: "/bin/false",
  });
  expect(status).toBe(77);
  expect(output).toContain("check:cuda is skipped");
  expect(readdirSync(folder)).toEqual([]); // nothing half fetched
});

test
  .skipIf(skips(existsSync("/dev/nvidia0") || existsSync("/dev/dxg"), "there is a GPU, so nothing refuses"))
  .each([
    ["scripts/test-gpu.mjs", "test:gpu"],
    ["bench/gpu.mjs", "bench:gpu"],
  ])("%s refuses without a GPU", (script, name) => {
  const { status, output } = run(script, { PATH: folder });
  expect(status).toBe(2);
  expect(output).toContain(`${name} needs an NVIDIA GPU`);
});

test("test:gpu refuses an argument that it would not read", () => {
  const { status, output } = run("scripts/test-gpu.mjs", { PATH: folder }, "--quick");
  expect(status).toBe(2);
  expect(output).toContain("test:gpu takes no arguments, and was given --quick");
});
