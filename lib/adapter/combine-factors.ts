import { PeftTrainError } from "../errors.js";
import { dareMask, type Masked } from "./dare-mask.js";
import { concatenate, distance, type Factors, inner, type LoraFactors, product } from "./factors.js";
import { type Truncated, truncateDense, truncateFactors } from "./low-rank.js";
import {
  dropAndRescale,
  electSigns,
  keepLargest,
  type MajoritySign,
  weightedSum,
} from "./task-arithmetic.js";

/** PEFT's `combination_type`s. */
export const COMBINATION_METHODS = [
  "cat",
  "svd",
  "linear",
  "ties",
  "dare_linear",
  "dare_ties",
  "magnitude_prune",
  "ties_svd",
  "dare_linear_svd",
  "dare_ties_svd",
  "magnitude_prune_svd",
] as const;
/** A way to combine adapters, by its name in PEFT; docs/merge-and-export.md has the maths. */
export type CombinationMethod = (typeof COMBINATION_METHODS)[number];

export interface CombineSettings {
  method: CombinationMethod;
  /** Part of the entries that ties, dare and magnitude_prune keep. */
  density: number;
  majoritySign: MajoritySign;
  /** Of the svd methods; by default the largest of the sources'. */
  svdRank: number | undefined;
  /** Quantile of the entries of A and B that clamps both; undefined for none. */
  svdClamp: number | undefined;
  /** Of DARE's masks. */
  seed: number;
}

/**
 * Part of the terms' norms below which a norm is rounding and counts as zero: A and B are float32, whose rounding is 6e-8, and norms
 * that come from inner products are known to 1e-8 of what cancels out in them.
 */
const RESOLUTION = 1e-7;

/** A module of the combined adapter, whose scale is 1, and what it is beside the weighted sum of the sources' products. */
export interface CombinedModule {
  factors: Factors;
  /** Frobenius norms of the exact weighted sum, and of the difference to it. */
  norm: number;
  difference: number;
  /** Of the svd methods: what the cut to a rank lost, and the norm of what was cut. */
  truncated: number | undefined;
  wanted: number;
}

/** @param sources Those that have the module, with their number among all and their weight. */
export function combineModule(
  name: string,
  sources: readonly { index: number; weight: number; factors: LoraFactors }[],
  settings: CombineSettings,
): CombinedModule {
  const factors = sources.map((source) => source.factors);
  const strengths = sources.map(({ weight, factors: { scale } }) => weight * scale);
  const exact = concatenate(factors, strengths);
  const indices = sources.map(({ index }) => index);
  const { method } = settings;
  const norms = factors.map((one, i) => Math.abs(strengths[i] as number) * Math.sqrt(inner(one, one)));
  const least = RESOLUTION * norms.reduce((sum, norm) => sum + norm, 0);
  if (method === "cat") return whole(exact, exact, least);
  if (method.endsWith("svd")) {
    const rank = settings.svdRank ?? Math.max(...factors.map((one) => one.rank));
    const cut = method === "svd" ? truncateFactors(exact, rank) : truncated(name, sources, settings, rank);
    const wanted = Math.hypot(cut.lost, Math.sqrt(inner(cut.factors, cut.factors)));
    if (settings.svdClamp !== undefined) clampToQuantile(cut.factors, settings.svdClamp);
    return {
      ...whole(cut.factors, exact, least),
      truncated: aboveRounding(cut.lost, least),
      wanted: aboveRounding(wanted, least),
    };
  }
  requireOneRank(name, factors, method);
  const { rank, inputs, outputs } = factors[0] as LoraFactors;
  // The weight goes half into A and half into B; its sign into A alone.
  const roots = strengths.map((strength) => Math.sqrt(Math.abs(strength)));
  const signed = strengths.map((strength, i) => (roots[i] as number) * (strength < 0 ? -1 : 1));
  const mixed = (side: "a" | "b", weights: number[]): Float64Array => {
    const tensors = factors.map((one) => one[side]);
    return mix(method, tensors, weights, indices, settings, { name, tensor: side === "a" ? "A" : "B" });
  };
  return whole({ rank, inputs, outputs, a: mixed("a", signed), b: mixed("b", roots) }, exact, least);
}

/** The products themselves, mixed entry by entry and cut to a rank. */
function truncated(
  name: string,
  sources: readonly { index: number; weight: number; factors: LoraFactors }[],
  settings: CombineSettings,
  rank: number,
): Truncated {
  const { inputs, outputs } = (sources[0] as { factors: LoraFactors }).factors;
  const deltas = sources.map(({ factors }) => product(factors, factors.scale));
  const weights = sources.map(({ weight }) => weight);
  const method = settings.method.replace(/_svd$/, "");
  const indices = sources.map(({ index }) => index);
  const delta = mix(method, deltas, weights, indices, settings, { name, tensor: "delta" });
  return truncateDense(delta, outputs, inputs, rank);
}

function mix(
  method: string,
  tensors: Float64Array[],
  weights: number[],
  indices: readonly number[],
  { density, majoritySign, seed }: CombineSettings,
  place: { name: string; tensor: Masked },
): Float64Array {
  const trimmed = (): Float64Array[] => tensors.map((tensor) => keepLargest(tensor, density));
  const dropped = (): Float64Array[] => {
    const mask = dareMask(seed, place.name, place.tensor, density);
    return tensors.map((tensor, i) => dropAndRescale(tensor, density, mask(indices[i] as number)));
  };
  switch (method) {
    case "ties":
      return electSigns(trimmed(), weights, majoritySign);
    case "dare_linear":
      return weightedSum(dropped(), weights);
    case "dare_ties":
      return electSigns(dropped(), weights, majoritySign);
    case "magnitude_prune":
      return weightedSum(trimmed(), weights);
    default:
      return weightedSum(tensors, weights);
  }
}

/** A result that no rank was cut from. @param least Norms up to it are rounding. */
function whole(factors: Factors, exact: Factors, least: number): CombinedModule {
  const { normY, difference } = distance(factors, exact);
  const norm = aboveRounding(normY, least);
  return { factors, norm, difference: aboveRounding(difference, least), truncated: undefined, wanted: norm };
}

function aboveRounding(norm: number, least: number): number {
  return norm > least ? norm : 0;
}

function requireOneRank(name: string, factors: readonly Factors[], method: string): void {
  const ranks = [...new Set(factors.map(({ rank }) => rank))];
  if (ranks.length === 1) return;
  throw new PeftTrainError(
    "ADAPTER_MISMATCH",
    `${method} mixes A with A and B with B, so that ranks must be the same; ${name} has ranks ${ranks.join(" and ")}`,
    { hint: "cat and the svd methods take adapters of any ranks." },
  );
}

/** As PEFT's svd_clamp: the quantile of the entries themselves, not of their magnitudes, with linear interpolation. */
export function clampToQuantile({ a, b }: Factors, quantile: number): void {
  const sorted = Float64Array.from([...b, ...a]).sort();
  const at = quantile * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)] as number, sorted[Math.ceil(at)] as number];
  const limit = low + (high - low) * (at - Math.floor(at));
  for (const values of [a, b]) {
    for (let i = 0; i < values.length; i++) {
      // torch.clamp with a lower bound above the upper one gives the upper one.
      values[i] = Math.min(limit, Math.max(-limit, values[i] as number));
    }
  }
}
