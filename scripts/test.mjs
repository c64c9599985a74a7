// npm test: builds what is out of date, runs the C++ tests (the engine's and the CUDA kernels') and then vitest, and
// ends with the sum of all.
// Just before the sum it tells what failed once more, a line or a few each beginning with "FAILED".
// With arguments (files, -t) it runs vitest alone, with these.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));
const chosen = process.argv.slice(2);

build("npm", ["run", "--silent", "build:ts"]);
build(process.execPath, ["scripts/build-native.mjs", ...(chosen.length === 0 ? ["--tests"] : [])]);
const counts = [];
if (chosen.length === 0) {
  counts.push(program("engine_tests", "engine"));
  counts.push(program("kernel_tests", "kernels"));
} else {
  console.log("Tests were named: the C++ tests are left out.");
}
counts.push(vitest(chosen));

let passed = 0;
let failed = 0;
for (const count of counts) {
  passed += count.passed;
  failed += count.failed;
  if (count.skipped > 0) console.log(`${count.skipped} skipped`);
}
for (const failure of counts.flatMap((count) => count.failures)) console.log(`FAILED ${failure}`);
console.log(`Tests: ${passed} passed, ${failed} failed`);
process.exit(failed === 0 && counts.every((count) => count.passed > 0) ? 0 : 1);

function build(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error === undefined && status === 0) return;
  console.error(`The build failed: ${command} ${args.join(" ")}${error ? `: ${error.message}` : ""}`);
  console.log("Tests: 0 passed, 1 failed");
  process.exit(1);
}

/** The program's last line counts; one that crashed or counted nothing is a failed test. */
function program(name, prefix) {
  const file = join(root, "build", "Release", name);
  const { status, signal, stdout, error } = spawnSync(file, {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    // As the package sets it: with libgomp's own, threads on a busy machine wait for each other most of the time.
    env: { GOMP_SPINCOUNT: "10000", ...process.env },
  });
  const output = stdout?.toString() ?? "";
  process.stdout.write(output);
  const line = new RegExp(`^${prefix}: (\\d+) passed, (\\d+) failed$`, "m").exec(output);
  const failures = output.match(/(?<=^FAIL ).*/gm) ?? [];
  const count = { passed: Number(line?.[1] ?? 0), failed: Number(line?.[2] ?? 0), skipped: 0, failures };
  if (status === 0 && line !== null) return count;
  failures.push(`${name} ended with ${error?.message ?? signal ?? `status ${status}`}`);
  return { ...count, failed: Math.max(1, count.failed) };
}

function vitest(args) {
  const folder = mkdtempSync(join(tmpdir(), "peft-train-vitest-"));
  const file = join(folder, "results.json");
  try {
    const program = join(root, "node_modules", "vitest", "vitest.mjs");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
    const { status, signal } = spawnSync(process.execPath, [program, "run", ...reporters, ...args], {
      cwd: root,
      stdio: "inherit",
    });
    const count = readCount(file);
    if (status === 0 && count !== undefined) return count;
    // Also an error outside any test, as an unhandled rejection, which vitest reports by its status alone.
    const failures = count?.failures ?? [];
    if (failures.length === 0)
      failures.push(
        `vitest ended with ${signal ?? `status ${status}`}${count ? ": see its unhandled errors above" : ""}`,
      );
    return { passed: 0, skipped: 0, ...count, failed: Math.max(1, count?.failed ?? 0), failures };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readCount(file) {
  let results;
  try {
    results = JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined; // vitest ended before it could write it
  }
  // A file that does not load holds no test that could fail.
  const unloaded = results.testResults.filter(
    ({ status, assertionResults }) =>
      status === "failed" && assertionResults.every((test) => test.status !== "failed"),
  );
  return {
    passed: results.numPassedTests,
    failed: results.numFailedTests + unloaded.length,
    skipped: results.numPendingTests + results.numTodoTests,
    failures: results.testResults.flatMap(failuresOf),
  };
}

/** What failed in a file of tests, each with the first lines of its message. */
function failuresOf({ name, status, message, assertionResults }) {
  const file = relative(root, name);
  const failed = assertionResults.filter((test) => test.status === "failed");
  if (failed.length === 0) return status === "failed" ? [`${file}: ${beginning(message)}`] : [];
  return failed.map((test) => `${file} > ${test.fullName}: ${beginning(test.failureMessages.join("\n"))}`);
}

function beginning(message) {
  return stripVTControlCharacters(message).slice(0, 1000);
}
