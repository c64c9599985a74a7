import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { multipliesBfloat16 } from "./machine.mjs";

const PATIENCE_SECONDS = 900;
const ALLOCATORS = ["jemalloc.so.2", "tcmalloc_minimal.so.4", "tcmalloc.so.4", "mimalloc.so.2"].flatMap(
  (name) =>
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"].map(
      (folder) => `${folder}/lib${name}`,
    ),
);
/**
 * What this package sets for itself: libgomp's threads wait for each other in a loop of 300,000 turns otherwise, which takes
 * the cores away from whatever else runs.
 */
export const SHORT_WAITS = { GOMP_SPINCOUNT: "10000" };
/** glibc gives large blocks back to the system at once and asks for them again at the next step, unless told not to. */
const KEEP_MEMORY = { MALLOC_MMAP_THRESHOLD_: "4294967296", MALLOC_TRIM_THRESHOLD_: "4294967296" };

/**
 * What may be turned, one thing after the other; every candidate is tried on top of the best so far. All of them leave
 * the gradient as it is, but for `bf16`, which is measured and never chosen.
 */
function stages() {
  const cut = (micro, ...more) => ({
    name: [`micro-batches of ${micro}`, ...more].join(", "),
    flags: ["--padding=longest", `--micro=${micro}`, ...more],
  });
  const threads = new Set([1, Math.ceil(availableParallelism() / 2), availableParallelism()]);
  return [
    [
      { name: "whole batches", flags: ["--padding=longest"] },
      { name: "whole batches, --joined", flags: ["--padding=longest", "--joined"] },
      ...[4, 8, 16, 32].map((micro) => cut(micro, "--joined")),
      cut(8),
      cut(16),
      ...[4, 8, 16].map((micro) => cut(micro, "--cut=texts")),
    ],
    [{ name: "threads wait as libgomp has it", env: { GOMP_SPINCOUNT: "300000" } }],
    [{ name: "attention written out", flags: ["--attention=eager"] }],
    [...threads].map((count) => ({ name: `threads: ${count}`, flags: [`--threads=${count}`] })),
    [
      { name: "glibc keeps freed memory", env: KEEP_MEMORY },
      ...ALLOCATORS.filter((file) => existsSync(file)).map((file) => ({
        name: file,
        env: { LD_PRELOAD: file },
      })),
    ],
    [{ name: "torch.compile", flags: ["--compile"] }],
    multipliesBfloat16() ? [{ name: "bfloat16 autocast", flags: ["--bf16"], neverChosen: true }] : [],
  ];
}

/** How a setting is told: its environment, then its flags; empty for the program as it is. */
export function settingText({ flags, env = {} }) {
  return [...Object.entries(env).map(([key, value]) => `${key}=${value}`), ...flags].join(" ");
}

/**
 * @param rate Measures one setting: (flags, env, timeoutSeconds) => pairs a second.
 * @returns {Promise<{ best: any, tried: any[] }>} One that fails is listed with its error.
 */
export async function bestSetting(rate, say, plan = stages()) {
  const tried = [];
  let best = { name: "", flags: [], env: SHORT_WAITS, pairsPerSecond: 0 };
  for (const stage of plan) {
    const before = best;
    for (const { name, flags = [], env = {}, neverChosen = false } of stage) {
      const setting = { name, flags: [...before.flags, ...flags], env: { ...before.env, ...env } };
      try {
        setting.pairsPerSecond = await rate(setting.flags, setting.env, PATIENCE_SECONDS);
      } catch (error) {
        setting.error = error.message;
      }
      tried.push(setting);
      say(`search: ${name}: ${setting.pairsPerSecond?.toFixed(2) ?? "failed"}`);
      if (!neverChosen && (setting.pairsPerSecond ?? 0) > best.pairsPerSecond) best = setting;
    }
  }
  if (best.pairsPerSecond === 0)
    throw new Error(`--search: no setting of Python ran; the first said: ${tried[0]?.error}`);
  return { best, tried };
}
