import { join } from "node:path";
import { PeftTrainError } from "../errors.js";
import { type LibtorchLocation, locateLibtorch } from "../native/locate.js";
import { BUILD_COMMAND, PACKAGE_ROOT } from "../native/package-root.js";
import { type ProbeFailure, type ProbeOutcome, runProbe } from "../native/probe.js";
import { CUDA_LIBRARY, hasLibrary, readTorchVersion } from "../native/torch-folder.js";
import { type Finding, problem } from "./finding.js";
import type { OneStep } from "./one-step.js";
import type { LoadedEngine, ProbeName } from "./probe-main.js";

const MAIN = join(PACKAGE_ROOT, "dist", "doctor", "probe-main.js");
const LOAD_MS = 120_000;
/** A driver may compile kernels for a new GPU first. */
const TRAIN_MS = 300_000;

export interface Located extends LibtorchLocation {
  /** The CUDA that it was built for; undefined where it serves the CPU alone. */
  cuda?: string;
}

export async function addonFinding(env: NodeJS.ProcessEnv): Promise<Finding> {
  const { value, failure } = await probe<string>("addon", env);
  if (value !== undefined) return { check: "addon", status: "ok", found: value };
  return failed("addon", failure, BUILD_COMMAND);
}

export async function tokenizerFinding(env: NodeJS.ProcessEnv): Promise<Finding> {
  const { value, failure } = await probe<{ tokens: number }>("tokenizer", env);
  if (value !== undefined) {
    return {
      check: "tokenizer",
      status: "ok",
      found: `loads, and cuts a sentence into ${value.tokens} tokens`,
    };
  }
  return failed("tokenizer", failure, "npm install peft-train   # again, with optional dependencies");
}

/** Looks at files alone. */
export function libtorchFinding(env: NodeJS.ProcessEnv): { finding: Finding; located?: Located } {
  try {
    const location = locateLibtorch({ env });
    const torch = join(location.folder, "torch");
    const cuda = hasLibrary(torch, CUDA_LIBRARY) ? readTorchVersion(torch)?.cuda : undefined;
    const kind = cuda === undefined ? "for the CPU" : `for CUDA ${cuda}`;
    const found = `${location.version} ${kind}, ${torch} (${location.source})`;
    const finding: Finding = {
      check: "libtorch",
      status: "ok",
      found,
      details: { ...location, cuda: cuda ?? null },
    };
    return { finding, located: { ...location, ...(cuda !== undefined && { cuda }) } };
  } catch (error) {
    if (!(error instanceof PeftTrainError)) throw error;
    const hint = env.PEFT_TRAIN_LIBTORCH ? error.hint : undefined; // else it speaks to programs too
    return { finding: problem("libtorch", error.message, hint ?? "npx peft-train setup") };
  }
}

/** Brings libtorch and the engine into a process. */
export async function loadFinding(
  env: NodeJS.ProcessEnv,
  located: Located,
): Promise<{ finding: Finding; engine?: LoadedEngine }> {
  const { value, failure } = await probe<LoadedEngine>("libtorch", env, "", LOAD_MS);
  const again = `npx peft-train setup --force${located.cuda === undefined ? "" : " --device cuda"}`;
  // The cache comes before any other place but the variable.
  const mend = located.source === "PEFT_TRAIN_LIBTORCH" ? `unset PEFT_TRAIN_LIBTORCH && ${again}` : again;
  if (value === undefined) {
    if (failure.code === "ADDON_MISSING") return { finding: failed("load", failure, BUILD_COMMAND) };
    // Nothing that libtorch could mend.
    const usage = failure.code === "USAGE" ? "unset PEFT_TRAIN_CPU_KERNELS" : mend;
    return { finding: problem("load", failure.message, usage) };
  }
  const { torchVersion, cpuKernels, cudaDevices, seconds, noCuda } = value;
  const sees =
    located.cuda === undefined ? "" : `, sees ${cudaDevices} CUDA device${cudaDevices === 1 ? "" : "s"}`;
  const found = `built for ${torchVersion}, ${cpuKernels} kernels${sees}, loaded in ${seconds.toFixed(1)} s`;
  if (noCuda !== undefined) {
    const missing = problem("load", `works on the CPU alone, CUDA's libraries do not load: ${noCuda}`, mend);
    return { finding: { ...missing, details: { ...value } }, engine: value };
  }
  return { finding: { check: "load", status: "ok", found, details: { ...value } }, engine: value };
}

/** Trains one step on a device. `cpuLoss`, where it is known, must come out on any device. */
export async function trainFinding(
  env: NodeJS.ProcessEnv,
  device: string,
  cpuLoss?: number,
): Promise<{ finding: Finding; loss?: number }> {
  const check = `train.${device}`;
  const { value, failure } = await probe<OneStep>("train", env, device, TRAIN_MS);
  const onCpu = device === "cpu";
  const mend = onCpu
    ? "PEFT_TRAIN_DEBUG=1 npx peft-train demo   # shows the whole error"
    : "nvidia-smi   # does the driver work? Until it does, train with --device=cpu";
  if (value === undefined) return { finding: failed(check, failure, mend) };
  const { loss, gradNorm, pairs, seconds } = value;
  const found = `one step over ${pairs} pairs, loss ${loss.toFixed(4)}, gradient ${gradNorm.toFixed(4)}, ${seconds.toFixed(1)} s`;
  // Sums in another order, and TF32 where libtorch takes it, differ by far less; wrong kernels by far more.
  if (cpuLoss !== undefined && Math.abs(loss - cpuLoss) > 1e-2 * Math.abs(cpuLoss)) {
    const wrong = `${found}; the CPU's loss is ${cpuLoss.toFixed(4)}`;
    return { finding: problem(check, wrong, "PEFT_TRAIN_CUDA_KERNELS=off npx peft-train doctor") };
  }
  return { finding: { check, status: "ok", found, details: { ...value } }, loss };
}

function probe<T>(
  name: ProbeName,
  env: NodeJS.ProcessEnv,
  argument = "",
  timeoutMs = LOAD_MS,
): Promise<ProbeOutcome<T>> {
  return runProbe<T>(MAIN, [name, argument], { env, timeoutMs });
}

function failed(check: string, failure: ProbeFailure, mend: string): Finding {
  return problem(check, failure.message, failure.hint ?? mend);
}
