import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { cacheFolder } from "../../dist/setup/cache.js";

const NO_NETWORK = {
  HF_HUB_OFFLINE: "1",
  TRANSFORMERS_VERBOSITY: "error",
  HF_HUB_DISABLE_PROGRESS_BARS: "1",
  PYTHONDONTWRITEBYTECODE: "1",
  PYTHONWARNINGS: "ignore::FutureWarning",
};

function pip(python, args) {
  const result = spawnSync(python, ["-m", "pip", "install", "--no-deps", ...args], { stdio: "inherit" });
  if (result.status !== 0) throw new Error(`pip install ${args.join(" ")} ended with ${result.status}`);
}

/** Installs into `folder` unless it was made from the same requirements; a marker is written last. */
function once(folder, requirements, install) {
  const marker = path.join(folder, "installed");
  const digest = createHash("sha256").update(readFileSync(requirements)).digest("hex");
  if (existsSync(marker) && readFileSync(marker, "utf8") === digest) return;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  install();
  writeFileSync(marker, digest);
}

/**
 * A Python with the pinned packages, and one more set of packages with the oldest supported PEFT in front of them.
 * @returns {{ program: string, env: Record<string, string>, oldest: Record<string, string> }}
 */
export function preparePython(root, say) {
  const cache = path.join(cacheFolder(), "interop");
  const requirements = (name) => path.join(root, "test/interop", name);
  let program = process.env.PEFT_TRAIN_INTEROP_PYTHON;
  if (!program) {
    const folder = path.join(cache, "venv");
    program = path.join(folder, process.platform === "win32" ? "Scripts/python.exe" : "bin/python");
    once(folder, requirements("requirements.txt"), () => {
      say(`making a virtual environment in ${folder}`);
      const made = spawnSync(process.platform === "win32" ? "python" : "python3", ["-m", "venv", folder], {
        stdio: "inherit",
      });
      if (made.status !== 0)
        throw new Error(`python3 -m venv ended with ${made.status ?? made.error?.message}`);
      pip(program, ["-r", requirements("requirements.txt")]);
    });
  }
  const oldest = path.join(cache, "oldest");
  once(oldest, requirements("requirements-oldest.txt"), () => {
    say(`installing the oldest supported PEFT in ${oldest}`);
    pip(program, ["--target", path.join(oldest, "packages"), "-r", requirements("requirements-oldest.txt")]);
  });
  return { program, env: NO_NETWORK, oldest: { ...NO_NETWORK, PYTHONPATH: path.join(oldest, "packages") } };
}
