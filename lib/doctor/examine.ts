import { hubSettings } from "../hub/settings.js";
import { cacheFolder } from "../setup/cache.js";
import { examineGpu } from "../setup/gpu.js";
import { TORCH_BYTES } from "../setup/pin.js";
import { gpuFinding } from "./cuda.js";
import { addonFinding, libtorchFinding, loadFinding, tokenizerFinding, trainFinding } from "./engine.js";
import type { Finding } from "./finding.js";
import { folderFinding } from "./folders.js";
import { cpuFinding, memoryFinding, packageFinding, threadsFinding } from "./machine.js";
import { hubFinding, proxyFinding } from "./network.js";

/** Adapters are megabytes. */
const OUTPUT_BYTES = 100e6;

export interface ExamineOptions {
  env?: NodeJS.ProcessEnv;
  /** In place of / for what is read of the GPU. */
  root?: string;
  /** Told before what takes a while. */
  onStart?: (what: string) => void;
}

/**
 * Looks at everything that training needs, and trains one step on every device. Needs no libtorch; whatever can crash or
 * hang runs in a process of its own.
 */
export async function* examine(options: ExamineOptions = {}): AsyncGenerator<Finding, void> {
  const { env = process.env, root = "/", onStart = () => {} } = options;
  yield packageFinding();
  yield cpuFinding();
  yield threadsFinding(env);
  yield memoryFinding();
  const { finding, located } = libtorchFinding(env);
  yield* folders(env, located === undefined);
  yield proxyFinding(env);
  yield hubFinding(env);

  onStart("looking for a GPU");
  const gpu = await examineGpu(env, root);
  yield gpuFinding(gpu, located);
  onStart("loading the tokenizer and the addon");
  yield await tokenizerFinding(env);
  const addon = await addonFinding(env);
  yield addon;
  yield finding;

  const loaded = addon.status === "ok" && located !== undefined;
  onStart("loading libtorch");
  const load = loaded ? await loadFinding(env, located) : undefined;
  yield load?.finding ?? skipped("load", addon.status === "ok" ? "no libtorch" : "no addon");
  if (load?.engine === undefined) {
    yield skipped("train.cpu", "libtorch is not loaded");
    return;
  }
  onStart("training one step on cpu");
  const cpu = await trainFinding(env, "cpu");
  yield cpu.finding;
  for (let i = 0; i < load.engine.cudaDevices; i++) {
    onStart(`training one step on cuda:${i}`);
    yield (await trainFinding(env, `cuda:${i}`, cpu.loss)).finding;
  }
}

async function* folders(env: NodeJS.ProcessEnv, forLibtorch: boolean): AsyncGenerator<Finding, void> {
  const needed = TORCH_BYTES.download + TORCH_BYTES.unpacked;
  yield folderFinding({
    check: "cache",
    folder: cacheFolder(env),
    needed: forLibtorch ? needed : 0,
    reason: `libtorch takes ${(needed / 1e9).toFixed(1)} GB while it is unpacked`,
    variable: "PEFT_TRAIN_CACHE",
  });
  const hub = hubCache(env);
  if (hub !== undefined) {
    yield folderFinding({ check: "hub_cache", folder: hub, needed: 0, reason: "", variable: "HF_HOME" });
  }
  yield folderFinding({
    check: "output",
    folder: process.cwd(),
    needed: OUTPUT_BYTES,
    reason: "an adapter and its checkpoints take up to 0.1 GB",
  });
}

function hubCache(env: NodeJS.ProcessEnv): string | undefined {
  try {
    return hubSettings(undefined, env).cache;
  } catch {
    return undefined; // hubFinding tells it
  }
}

function skipped(check: string, why: string): Finding {
  return { check, status: "skipped", found: `not tried: ${why}` };
}
