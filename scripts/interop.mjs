// Interchange with Python: adapters trained here load in PEFT and give the same embeddings, and the other way round.
//
//   npm run test:interop [-- --work FOLDER] [--no-build]
//
// Makes a virtual environment in the cache folder on its first run (5 GB with the CUDA wheel of torch that pip has for Linux);
// PEFT_TRAIN_INTEROP_PYTHON names a Python that has the packages of test/interop/requirements.txt already.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, styleText } from "node:util";
import Table from "cli-table3";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values: options } = parseArgs({
  options: { work: { type: "string" }, "no-build": { type: "boolean", default: false } },
});
if (!options["no-build"]) {
  const { status } = spawnSync("npm", ["run", "--silent", "build"], { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(1);
}
// Only now is there a dist/ to import.
const { preparePython } = await import("../test/interop/environment.mjs");
const { interchange } = await import("../test/interop/interchange.mjs");

const work = path.resolve(options.work ?? mkdtempSync(path.join(tmpdir(), "peft-train-interop-")));
mkdirSync(work, { recursive: true });
const say = (text) => console.log(`· ${text}`);
const reports = await run();

async function run() {
  try {
    return await interchange(root, work, preparePython(root, say), say);
  } catch (error) {
    console.error(`interop: ${error.message}\nFiles are in ${work}`);
    process.exit(1);
  }
}

const paint = process.stdout.isTTY ? styleText : (_, text) => text;
const mark = (ok) => (ok ? paint("green", "ok") : paint("red", "FAILED"));
const number = (value) =>
  Math.abs(value) < 1e-2 && value !== 0 ? value.toExponential(1) : String(Number(value.toPrecision(8)));
const shown = (value) => (typeof value === "number" ? number(value) : value);
const table = new Table({
  head: ["compared", "measure", "found", "limit", ""],
  chars: { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" },
  style: { head: [], border: [] },
});
const rows = reports.flatMap((report) => report.rows);
for (const { what, unit, figure, limit, ok } of rows)
  table.push([what, unit, shown(figure), shown(limit), mark(ok)]);
console.log(table.toString());

const failed = rows.filter(({ ok }) => !ok).length;
const peers = reports.map(({ peft, transformers }) => `PEFT ${peft} on transformers ${transformers}`);
console.log(
  `${rows.length} comparisons with ${peers.join(" and ")}: ${failed === 0 ? "all agree" : `${failed} failed`}`,
);
if (options.work === undefined && failed === 0) rmSync(work, { recursive: true, force: true });
else say(`files are in ${work}`);
process.exitCode = failed === 0 && rows.length > 0 ? 0 : 1;
