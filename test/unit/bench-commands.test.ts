import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../support/temporary-folder.js";

// Every benchmark as it is typed. None gets as far as measuring something.

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = temporaryFolder();

function run(script: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  // A benchmark that asks for Python has not found what it was to find before.
  const env = { ...process.env, PEFT_TRAIN_BENCH_PYTHON: "/bin/false" };
  return spawnSync(process.execPath, [join(root, script), ...args], { cwd: root, encoding: "utf8", env });
}

const WITH_FIGURES = ["index", "gpu", "quant", "anchored"];
const ALL = [...WITH_FIGURES, "serve", "adapters", "tenants", "event-loop"];

test.each(ALL)("bench/%s.mjs tells an option that is not there in one line", (name) => {
  const { status, stdout, stderr } = run(`bench/${name}.mjs`, "--speed");
  expect(stderr).toMatch(/^bench[^\n]*: Unknown option '--speed'[^\n]*\n$/);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
});

test.each(WITH_FIGURES)("bench/%s.mjs looks at where its figures go before it makes them", (name) => {
  const pairs = "data/pairs/test.csv";
  const required = ["--model=data/encoder", `--train=${pairs}`, `--test=${pairs}`, `--unrelated=${pairs}`];
  const { status, stderr } = run(
    `bench/${name}.mjs`,
    ...(name === "anchored" ? required : []),
    `--json=${folder.path("none", "figures.json")}`,
  );
  expect(stderr).toContain("--json: cannot write");
  expect(status).toBe(2);
});

test.each([
  ["serve", "--clients=1,x", "--clients"],
  ["serve", "--model=none", "no config.json in none"],
  ["adapters", "--texts=x", "--texts"],
  ["adapters", "--storage=int4", "expected one of float32"],
  ["tenants", "--steps=x", "--steps"],
  ["event-loop", "--texts=0", "--texts"],
  ["quant", "--only=nf4,nf5", 'found "nf5"'],
  ["gpu", "--seed=-1", "--seed"],
  ["anchored", "--model=data/encoder", "--train is required"],
])("bench/%s.mjs %s is refused", (name, option, message) => {
  const { status, stderr } = run(`bench/${name}.mjs`, option);
  expect(stderr).toContain(message);
  expect(status).toBe(2);
});

test.each([
  ["too few pairs", ["--only=train", "--steps=1000"], "train.csv: expected at least"],
  ["too few questions", ["--only=train,encode", "--texts=99999"], "test.csv: expected at least"],
  ["a flag of training", ["--only=train", "--ours=mine=--learnig_rate=1"], "unknown flag --learnig_rate"],
  ["an option of loading", ["--only=encode", '--ours_encode=mine={"quantise":"nf4"}'], "quantise"],
])("what does not fit is found before Python is asked: %s", (_, args, message) => {
  const { status, stderr } = run("bench/index.mjs", ...args);
  expect(stderr).toContain(message);
  expect(status).toBe(1);
});

const FRAME = `
  import { spawn } from "node:child_process";
  import { benchmark } from ${JSON.stringify(join(root, "bench/benchmark.mjs"))};
  import { endWithUs } from ${JSON.stringify(join(root, "bench/process.mjs"))};
  await benchmark("bench", ([how]) => how, async (how, folder) => {
    const wait = ["-e", "setInterval(() => {}, 1000)"];
    endWithUs(spawn(process.execPath, wait, { stdio: ["ignore", "inherit", "ignore"] }));
    console.log(folder);
    if (how === "fail") throw new Error("no such thing");
  });
`;

test.each([
  ["fails", "fail", 1],
  ["is stopped", "wait", 143],
])("a benchmark that %s takes what it started and its folder with it", async (_, how, status) => {
  const script = folder.path("frame.mjs");
  writeFileSync(script, FRAME);
  const child = spawn(process.execPath, [script, how], { stdio: ["ignore", "pipe", "ignore"] });
  const closed = once(child, "close"); // only when what it started, which has its stdout, is gone too
  const [line] = await once(child.stdout, "data");
  if (how === "wait") child.kill("SIGTERM");
  const [code] = await closed;
  expect(code).toBe(status);
  expect(existsSync(String(line).trim())).toBe(false);
});
