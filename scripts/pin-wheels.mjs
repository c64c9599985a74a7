// node scripts/pin-wheels.mjs: asks pip for the wheels of the pinned torch, and writes their names and SHA-256 to
// lib/setup/wheels.ts. Downloads metadata alone. Run it after PINNED_TORCH has changed and dist/ is built.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PINNED_TORCH } from "../dist/setup/pin.js";

const PLATFORMS = { "linux-x64": "x86_64", "linux-arm64": "aarch64" };
/** The first is what set-up fetches: libtorch does not depend on Python. The others are known when they lie in a folder. */
const PYTHONS = ["3.12", "3.10", "3.11", "3.13", "3.14"];
const NEWEST_GLIBC = 28;
const FILE = fileURLToPath(new URL("../lib/setup/wheels.ts", import.meta.url));

const work = mkdtempSync(join(tmpdir(), "peft-train-pin-"));
try {
  const table = Object.fromEntries(
    Object.entries(PLATFORMS).map(([platform, machine]) => [platform, wheelsOf(machine)]),
  );
  writeFileSync(FILE, source(table));
  const { status } = spawnSync("npx", ["biome", "format", "--write", FILE], { stdio: "inherit" });
  process.exitCode = status ?? 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}

function wheelsOf(machine) {
  const [first, ...others] = PYTHONS;
  const all = report(machine, first, true).filter(({ project }) => /^(torch$|nvidia-)/.test(project));
  const torch = all.filter(({ project }) => project === "torch");
  const more = others.flatMap((python) => report(machine, python, false));
  return [...torch, ...more, ...all.filter(({ project }) => project !== "torch")];
}

/** What pip would install, with the dependencies or without. */
function report(machine, python, dependencies) {
  const file = join(work, "report.json");
  const platforms = ["manylinux1", "manylinux2010", "manylinux2014"].map((name) => `${name}_${machine}`);
  for (let minor = 5; minor <= NEWEST_GLIBC; minor++) platforms.push(`manylinux_2_${minor}_${machine}`);
  const args = [
    ...["-m", "pip", "install", "--quiet", "--dry-run", "--report", file, "--ignore-installed"],
    ...["--only-binary=:all:", "--target", join(work, "target"), "--implementation", "cp"],
    ...["--python-version", python, ...platforms.flatMap((name) => ["--platform", name])],
    ...(dependencies ? [] : ["--no-deps"]),
    `torch==${PINNED_TORCH}`,
  ];
  const { status } = spawnSync("python3", args, { stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Error(`pip gives no answer for Python ${python} on ${machine}`);
  return JSON.parse(readFileSync(file, "utf8")).install.map(({ metadata, download_info }) => ({
    project: metadata.name.toLowerCase().replaceAll(/[-_.]+/g, "-"),
    file: decodeURIComponent(download_info.url.split("/").at(-1)),
    sha256: download_info.archive_info.hashes.sha256,
  }));
}

function source(table) {
  return `// Written by scripts/pin-wheels.mjs.

/** A wheel whose content is known. */
export interface PinnedWheel {
  /** As an index spells it, such as "nvidia-cuda-runtime". */
  project: string;
  file: string;
  /** Hexadecimal. */
  sha256: string;
}

/** The wheels of torch ${PINNED_TORCH} by platform: torch for several Pythons, and NVIDIA's libraries for the first. */
export const PINNED_WHEELS: Readonly<Record<string, readonly PinnedWheel[]>> = ${JSON.stringify(table, null, 2)};
`;
}
