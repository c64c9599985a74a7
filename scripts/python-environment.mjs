import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

/** For Python programs that must not reach for the Hub, nor print bars and warnings. */
export const NO_NETWORK = {
  HF_HUB_OFFLINE: "1",
  TRANSFORMERS_VERBOSITY: "error",
  HF_HUB_DISABLE_PROGRESS_BARS: "1",
  PYTHONDONTWRITEBYTECODE: "1",
  PYTHONWARNINGS: "ignore::FutureWarning",
};

export function pip(python, args) {
  const result = spawnSync(python, ["-m", "pip", "install", ...args], { stdio: "inherit" });
  if (result.status !== 0) throw new Error(`pip install ${args.join(" ")} ended with ${result.status}`);
}

/** Installs into `folder` unless that was done from the same files for the same Python; a marker is written last. */
export function once(folder, python, files, install) {
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
 * A virtual environment in `folder`, made on the first call and again when a list of packages changes.
 * @param pinned Requirements that are whole, installed without their dependencies.
 * @param withDependencies Requirements whose dependencies pip chooses.
 * @returns {string} its Python
 */
export function virtualEnvironment(folder, pinned, withDependencies, say) {
  const windows = process.platform === "win32";
  const python = windows ? "python" : "python3";
  const program = path.join(folder, windows ? "Scripts/python.exe" : "bin/python");
  once(folder, python, [...pinned, ...withDependencies], () => {
    say(`making a virtual environment in ${folder}`);
    const { status, error } = spawnSync(python, ["-m", "venv", folder], { stdio: "inherit" });
    if (status !== 0) throw new Error(`${python} -m venv ended with ${error?.message ?? status}`);
    pip(program, ["--no-deps", ...pinned.flatMap((file) => ["-r", file])]);
    pip(
      program,
      withDependencies.flatMap((file) => ["-r", file]),
    );
  });
  return program;
}
