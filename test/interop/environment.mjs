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
  const result = spawnSync(python, ["-m", "pip", "install", ...args], { stdio: "inherit" });
  if (result.status !== 0) throw new Error(`pip install ${args.join(" ")} ended with ${result.status}`);
}

/** Installs into `folder` unless that was done from the same files for the same Python; a marker is written last. */
function once(folder, python, files, install) {
  const marker = path.join(folder, "installed");
  const hash = createHash("sha256");
  // Compiled wheels are for one version of Python.
  hash.update(spawnSync(python, ["--version"], { encoding: "utf8" }).stdout ?? "");
  for (const file of files) hash.update(readFileSync(file));
  const digest = hash.digest("hex");
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
    const python = process.platform === "win32" ? "python" : "python3";
    const folder = path.join(cache, "venv");
    const [pinned, torch] = [requirements("requirements.txt"), requirements("requirements-torch.txt")];
    program = path.join(folder, process.platform === "win32" ? "Scripts/python.exe" : "bin/python");
    once(folder, python, [pinned, torch], () => {
      say(`making a virtual environment in ${folder}`);
      const { status, error } = spawnSync(python, ["-m", "venv", folder], { stdio: "inherit" });
      if (status !== 0) throw new Error(`${python} -m venv ended with ${error?.message ?? status}`);
      pip(program, ["--no-deps", "-r", pinned]);
      pip(program, ["-r", torch]);
    });
  }
  const oldest = path.join(cache, "oldest");
  const packages = path.join(oldest, "packages");
  once(oldest, program, [requirements("requirements-oldest.txt")], () => {
    say(`installing the oldest supported PEFT in ${oldest}`);
    pip(program, ["--no-deps", "--target", packages, "-r", requirements("requirements-oldest.txt")]);
  });
  return { program, env: NO_NETWORK, oldest: { ...NO_NETWORK, PYTHONPATH: packages } };
}
