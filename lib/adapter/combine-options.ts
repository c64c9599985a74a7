import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { COMBINATION_METHODS, type CombinationMethod, type CombineSettings } from "./combine-factors.js";

/** How adapters are combined; defaults are those of the exact combination. */
export interface CombineOptions {
  /** As PEFT's `combination_type`; `cat`, the default, is the exact sum, and `svd` the nearest adapter of a rank. */
  method?: CombinationMethod | undefined;
  /** ties, dare and magnitude_prune: part of the entries that stays, above 0 and at most 1; they need it. */
  density?: number | undefined;
  /** ties and dare_ties: whether the sum of the values elects a sign or that of their signs. Default: total. */
  majoritySignMethod?: "total" | "frequency" | undefined;
  /** svd methods: rank of the result. Default: the largest of the adapters'. */
  svdRank?: number | undefined;
  /** svd methods: quantile of the entries of A and B that both are clamped to. Default: none. */
  svdClamp?: number | undefined;
  /** dare: seed of the masks. Default: 0. */
  seed?: number | undefined;
  /** Bytes of an adapter of the Hub that are here, and in all. */
  onDownload?: HubAccess["onProgress"];
  /** Modules that are combined, and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Ends the work with ABORTED; nothing is written then. */
  signal?: AbortSignal | undefined;
}

const COMBINE_OPTIONS: OptionNames<CombineOptions> = {
  method: true,
  density: true,
  majoritySignMethod: true,
  svdRank: true,
  svdClamp: true,
  seed: true,
  onDownload: "function",
  onProgress: "function",
  signal: "AbortSignal",
};

/** @throws USAGE */
export function combineSettings(options: CombineOptions): CombineSettings {
  requireKnownOptions(options, COMBINE_OPTIONS, "combineAdapters");
  const method = options.method ?? "cat";
  const refuse = (name: string, expected: string, found: unknown): never => {
    throw new PeftTrainError("USAGE", `${name}: expected ${expected}, found ${JSON.stringify(found)}`);
  };
  if (!COMBINATION_METHODS.includes(method)) {
    refuse("method", `one of ${COMBINATION_METHODS.join(", ")}`, method);
  }
  const sparse = /^(ties|dare|magnitude)/.test(method);
  const svd = /svd$/.test(method);
  const { density, majoritySignMethod, svdRank, svdClamp, seed } = options;
  for (const [name, value, fits] of [
    ["density", density, sparse],
    ["majority_sign_method", majoritySignMethod, method.includes("ties")],
    ["svd_rank", svdRank, svd],
    ["svd_clamp", svdClamp, svd],
    ["seed", seed, method.startsWith("dare")],
  ] as const) {
    if (value === undefined || fits) continue;
    throw new PeftTrainError("USAGE", `${name} says nothing to the method ${method}`, {
      hint: "Leave it out, or choose another method.",
    });
  }
  if (sparse && density === undefined) {
    throw new PeftTrainError("USAGE", `${method} needs a density`, {
      hint: "For example 0.5: half of the entries stay.",
    });
  }
  if (density !== undefined && !(density > 0 && density <= 1)) {
    refuse("density", "a number above 0 and at most 1", density);
  }
  if (majoritySignMethod !== undefined && !["total", "frequency"].includes(majoritySignMethod)) {
    refuse("majority_sign_method", "total or frequency", majoritySignMethod);
  }
  if (svdRank !== undefined && !(Number.isInteger(svdRank) && svdRank >= 1 && svdRank <= 65536)) {
    refuse("svd_rank", "a whole number above 0", svdRank);
  }
  if (svdClamp !== undefined && !(svdClamp > 0 && svdClamp <= 1)) {
    refuse("svd_clamp", "a number above 0 and at most 1", svdClamp);
  }
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    refuse("seed", "a whole number of at least 0", seed);
  }
  return {
    method,
    density: density ?? 1,
    majoritySign: majoritySignMethod ?? "total",
    svdRank,
    svdClamp,
    seed: seed ?? 0,
  };
}

/** PEFT takes `linear` for a single adapter, whatever was asked; the exact sum and the cut to a rank make sense for one too. */
export function soleSource(settings: CombineSettings, sources: number): CombineSettings {
  const exact = settings.method === "cat" || settings.method === "svd";
  return sources === 1 && !exact ? { ...settings, method: "linear" } : settings;
}
