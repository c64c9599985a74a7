import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { VERSION } from "../version.js";
import { type Finding, problem } from "./finding.js";

const OLDEST_NODE = [20, 19] as const;
const OLDEST_GLIBC = [2, 28] as const;
/** libtorch takes about half a gigabyte, a small encoder and its training another. */
const LITTLE_MEMORY = 2e9;
/** Instruction sets as /proc/cpuinfo calls them. */
const CPU_FEATURES: readonly [name: string, flag: string][] = [
  ["AVX2", "avx2"],
  ["AVX-VNNI", "avx_vnni"],
  ["AVX-512", "avx512f"],
  ["VNNI", "avx512_vnni"],
  ["bf16", "avx512_bf16"],
  ["AMX", "amx_tile"],
];

export function packageFinding(): Finding {
  const { glibcVersionRuntime: glibc } = (process.report.getReport() as { header: Record<string, string> })
    .header;
  const { node } = process.versions;
  const platform = `${process.platform}-${process.arch}`;
  const found = `peft-train ${VERSION}, Node ${node}, ${platform}${glibc ? `, glibc ${glibc}` : ""}`;
  const details = { version: VERSION, node, platform, glibc: glibc ?? null };
  if (isOlder(node, OLDEST_NODE)) {
    return { ...problem("package", `${found}: Node is too old`, "Install Node 20.19 or newer."), details };
  }
  if (process.platform !== "linux") {
    const next = "Use Linux on x64 or arm64, in a virtual machine or a container.";
    return { ...problem("package", `${found}: not Linux`, next), details };
  }
  if (glibc === undefined || isOlder(glibc, OLDEST_GLIBC)) {
    const why = glibc === undefined ? "no glibc (musl?)" : "glibc is older than 2.28";
    const next = "Use a system with glibc 2.28 or newer, as the image node:22-bookworm-slim.";
    return { ...problem("package", `${found}: ${why}`, next), details };
  }
  return { check: "package", status: "ok", found, details };
}

export function cpuFinding(): Finding {
  const model = cpus()[0]?.model.trim() ?? "unknown processor";
  const flags = cpuFlags();
  const has = (flag: string): boolean => flags.has(flag);
  const features = CPU_FEATURES.map(([name, flag]) => `${name} ${has(flag) ? "yes" : "no"}`).join(", ");
  return {
    check: "cpu",
    status: "ok",
    found: flags.size === 0 ? model : `${model}: ${features}`,
    details: { model, ...Object.fromEntries(CPU_FEATURES.map(([name, flag]) => [name, has(flag)])) },
  };
}

export function threadsFinding(env: NodeJS.ProcessEnv): Finding {
  const physical = physicalCores();
  const usable = availableParallelism();
  const set = env.OMP_NUM_THREADS;
  const cores = physical === undefined ? "" : `${physical} physical cores, `;
  return {
    check: "threads",
    status: set === undefined ? "ok" : "note",
    found: `${cores}${usable} usable threads${set === undefined ? "" : `; OMP_NUM_THREADS=${set} limits the engine`}`,
    ...(set !== undefined && { next: "unset OMP_NUM_THREADS" }),
    details: { physical: physical ?? null, usable, OMP_NUM_THREADS: set ?? null },
  };
}

export function memoryFinding(): Finding {
  const limit = process.constrainedMemory();
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  // Linux counts what it would give back from its cache; freemem() does so on Linux from MemAvailable.
  const free = Math.min(freemem(), total);
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
  const found = `${gigabytes(free)} free of ${gigabytes(total)}${total < totalmem() ? " (limit of the container)" : ""}`;
  const details = { freeBytes: free, totalBytes: total };
  if (free >= LITTLE_MEMORY) return { check: "memory", status: "ok", found, details };
  const next = "End other programs, or train with --per_device_train_batch_size=16 --load_in_8bit.";
  return { check: "memory", status: "note", found: `${found}: little for training`, next, details };
}

function cpuFlags(): Set<string> {
  return new Set(
    /^(?:flags|Features)\s*:(.*)$/m.exec(readText("/proc/cpuinfo"))?.[1]?.trim().split(/\s+/) ?? [],
  );
}

/** Cores counted once where each runs two threads. */
function physicalCores(): number | undefined {
  const cores = new Set<string>();
  for (const block of readText("/proc/cpuinfo").split("\n\n")) {
    const core = /^core id\s*:\s*(\d+)/m.exec(block)?.[1];
    if (core !== undefined) cores.add(`${/^physical id\s*:\s*(\d+)/m.exec(block)?.[1] ?? 0}/${core}`);
  }
  return cores.size > 0 ? cores.size : undefined;
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function isOlder(version: string, [major, minor]: readonly [number, number]): boolean {
  const [a = 0, b = 0] = version.split(".").map(Number);
  return a < major || (a === major && b < minor);
}
