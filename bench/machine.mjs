import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem, type } from "node:os";
import { join } from "node:path";

const FLAGS = [
  "avx2",
  "avx_vnni",
  "avx512f",
  "avx512_vnni",
  "avx512_bf16",
  "amx_tile",
  "amx_int8",
  "amx_bf16",
];

/** What the figures depend on. */
export function machine(root) {
  const text = read("/proc/cpuinfo") ?? "";
  const flags = processorFlags(text);
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    logicalCores: cpus().length,
    physicalCores: physicalCores(text) ?? cpus().length,
    memoryGiB: Number((totalmem() / 2 ** 30).toFixed(1)),
    flags: FLAGS.filter((flag) => flags.has(flag)),
    system: `${type()} ${release()}`,
    loadAtStart: Number(loadavg()[0].toFixed(2)),
    node: process.version,
    libtorch: read(join(root, "build/Release/libtorch-version"))?.trim(),
    package: JSON.parse(read(join(root, "package.json"))).version,
    commit: commit(root),
  };
}

/** Whether the processor has instructions for it, or does not say; without, libtorch's take a minute a step. */
export function multipliesBfloat16(cpuinfo = read("/proc/cpuinfo") ?? "") {
  const flags = processorFlags(cpuinfo);
  return flags.size === 0 || flags.has("avx512_bf16") || flags.has("amx_bf16");
}

function processorFlags(cpuinfo) {
  return new Set(/^flags\s*:(.*)$/m.exec(cpuinfo)?.[1].trim().split(" ") ?? []);
}

export function physicalCores(cpuinfo) {
  const cores = new Set();
  for (const block of cpuinfo.split("\n\n")) {
    const socket = /^physical id\s*:\s*(\d+)$/m.exec(block);
    const core = /^core id\s*:\s*(\d+)$/m.exec(block);
    if (socket !== null && core !== null) cores.add(`${socket[1]}:${core[1]}`);
  }
  return cores.size || undefined;
}

/**
 * Starts to count the time that other processes (and other guests of the same host) take of the processors. The function
 * that it returns gives their part of all the time since, 0 to 1; undefined without /proc.
 */
export function watchOthers() {
  const start = processorTime();
  return () => {
    const end = processorTime();
    if (start === undefined || end === undefined || end.all <= start.all) return undefined;
    const others = end.busy - start.busy - (end.own - start.own);
    return Math.max(0, others / (end.all - start.all));
  };
}

/** In clock ticks. `own` has this process and those of its children that have ended. */
function processorTime() {
  const total = /^cpu +(.*)$/m
    .exec(read("/proc/stat") ?? "")?.[1]
    .split(" ")
    .map(Number);
  // The second field is a name in brackets, which may hold blanks.
  const self = read("/proc/self/stat")
    ?.replace(/^.*\) /s, "")
    .split(" ")
    .map(Number);
  if (total === undefined || self === undefined) return undefined;
  const [user, nice, system, idle, iowait, irq, softirq, steal] = total;
  const busy = user + nice + system + irq + softirq + steal;
  const [utime, stime, cutime, cstime] = self.slice(11, 15);
  return { all: busy + idle + iowait, busy, own: utime + stime + cutime + cstime };
}

function commit(root) {
  const git = (...args) => spawnSync("git", args, { cwd: root, encoding: "utf8" }).stdout?.trim();
  const head = git("rev-parse", "--short", "HEAD");
  // What the benchmark itself writes does not make the tree another one.
  const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/benchmarks.md");
  return head ? `${head}${changed ? ", changed" : ""}` : undefined;
}

function read(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
