// The newest versions of the system's libraries that a compiled file asks for, from its dynamic symbols.
// node scripts/symbol-versions.mjs FILE... ends with 1 where one asks for more than the floor.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/** What every system with glibc 2.28 has: RHEL 8, Debian 10, Ubuntu 20.04. */
export const FLOOR = { GLIBC: "2.28", GLIBCXX: "3.4.25", CXXABI: "1.3.11" };

/** @returns {Record<string, string>} such as { GLIBC: "2.27", GLIBCXX: "3.4.22" } */
export function symbolVersions(file) {
  const { status, stdout, stderr, error } = spawnSync("objdump", ["-T", file], {
    encoding: "utf8",
    maxBuffer: 1e9,
  });
  if (status !== 0) throw new Error(`objdump (of binutils) on ${file}: ${error?.message ?? stderr}`);
  return newest(stdout);
}

export function newest(symbols) {
  const found = {};
  for (const [, name, version] of symbols.matchAll(/\b(GLIBC|GLIBCXX|CXXABI)_(\d+(?:\.\d+)+)/g)) {
    if (found[name] === undefined || isNewer(version, found[name])) found[name] = version;
  }
  return found;
}

/** @returns {string[]} as "GLIBC_2.34 (2.28 is the floor)" */
export function aboveFloor(versions) {
  return Object.entries(versions)
    .filter(([name, version]) => isNewer(version, FLOOR[name]))
    .map(([name, version]) => `${name}_${version} (${FLOOR[name]} is the floor)`);
}

function isNewer(a, b) {
  const [x, y] = [a, b].map((version) => version.split(".").map(Number));
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    if ((x[i] ?? 0) !== (y[i] ?? 0)) return (x[i] ?? 0) > (y[i] ?? 0);
  }
  return false;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const file of process.argv.slice(2)) {
    const above = aboveFloor(symbolVersions(file));
    console.log(`${file}: ${above.join(", ") || "in order"}`);
    if (above.length > 0) process.exitCode = 1;
  }
}
