import type { CombinedModule } from "./combine-factors.js";

/** Frobenius norms, of what the adapters add to the base weights. */
export interface CombinedNorms {
  /** Of the exact weighted sum; 0 where its terms cancel out to float32's rounding. */
  norm: number;
  /**
   * Of the difference between the combined adapter and the exact weighted sum, over `norm`; undefined where the sum is zero and the
   * adapter is not.
   */
  relativeDifference: number | undefined;
  /** svd methods: what was cut off, over the norm of what was to be approximated. */
  truncationError: number | undefined;
}

/** The norms of one module. */
export interface CombinedModuleNorms extends CombinedNorms {
  /** Inside BertModel, such as `encoder.layer.0.attention.self.query`. */
  name: string;
  /** Of the result. */
  rank: number;
}

/** Of some modules of a combined adapter, together. */
export function combinedNorms(modules: readonly CombinedModule[]): CombinedNorms {
  const total = (norm: (one: CombinedModule) => number): number => Math.hypot(...modules.map(norm));
  const norm = total((one) => one.norm);
  const isCut = modules.some(({ truncated }) => truncated !== undefined);
  return {
    norm,
    relativeDifference: over(
      total((one) => one.difference),
      norm,
    ),
    truncationError: isCut
      ? over(
          total((one) => one.truncated ?? 0),
          total((one) => one.wanted),
        )
      : undefined,
  };
}

/** Undefined for what would be a share of nothing. */
function over(value: number, norm: number): number | undefined {
  if (value === 0) return 0;
  return norm === 0 ? undefined : value / norm;
}
