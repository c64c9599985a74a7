import { PeftTrainError } from "../errors.js";
import type { VectorDrift } from "../metrics/vector-drift.js";
import type { WeightFormat } from "../native/types.js";

/** Largest 1 - cosine where nobody says otherwise; quantising loses more, and is only told. */
const TOLERANCE = 1e-3;

export function isQuantized(dtype: WeightFormat): boolean {
  return dtype === "nf4" || dtype === "fp4" || dtype === "int8";
}

/** @throws USAGE */
export function requireTolerance(tolerance: number | undefined): void {
  if (tolerance === undefined || (typeof tolerance === "number" && tolerance >= 0)) return;
  throw new PeftTrainError("USAGE", `tolerance: expected a number of at least 0, found ${tolerance}`);
}

/** @throws USAGE, DATA_EMPTY */
export function requireProbe(texts: readonly string[]): void {
  if (!Array.isArray(texts)) {
    throw new PeftTrainError("USAGE", `probe: expected an array of strings, found ${typeof texts}`);
  }
  if (texts.length === 0) throw new PeftTrainError("DATA_EMPTY", "the probe holds no texts");
}

/**
 * @param adapter What the merged vectors are held against.
 * @param lastly What is as it was.
 * @param hint What to do about it.
 * @throws MERGE_DRIFT where the worst is above the tolerance.
 */
export function requireNear(
  drift: VectorDrift,
  dtype: WeightFormat,
  tolerance: number | undefined,
  words: { adapter: string; lastly: string; hint: string },
): void {
  const allowed = tolerance ?? (isQuantized(dtype) ? Number.POSITIVE_INFINITY : TOLERANCE);
  if (drift.worst <= allowed) return;
  throw new PeftTrainError(
    "MERGE_DRIFT",
    `merged in ${dtype}, the vector of ${JSON.stringify(drift.worstText)} is ${drift.worst.toPrecision(3)} (1 - cosine) from ` +
      `that of ${words.adapter}, the mean of ${drift.texts} texts ${drift.mean.toPrecision(3)}; ${allowed} is allowed. ${words.lastly}`,
    { hint: words.hint },
  );
}

/** As PEFT warns of merging into 4 bits, with what it came to. */
export function roundingWarning(dtype: WeightFormat, drift: Pick<VectorDrift, "mean" | "worst">): string {
  return (
    `merged weights were rounded to ${dtype}: vectors are ${drift.mean.toPrecision(2)} (1 - cosine) from those of base and ` +
    `adapter in the mean, ${drift.worst.toPrecision(2)} at worst`
  );
}
