import type { HeldAdapter } from "../adapter/loaded.js";
import {
  isQuantized,
  requireNear,
  requireProbe,
  requireTolerance,
  roundingWarning,
} from "../adapter/merge-drift.js";
import { probeTexts } from "../data/probe-texts.js";
import { PeftTrainError } from "../errors.js";
import { type VectorDrift, vectorDrift } from "../metrics/vector-drift.js";
import type { NativeEncoder, WeightFormat } from "../native/types.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import type { TextSettings } from "./call.js";
import type { EncodeQueue } from "./queue.js";

/** How an adapter is merged into the base of an encoder, and how far its vectors may move. */
export interface MergeAdapterOptions {
  /**
   * `base` holds merged weights as the base's are, in as many bytes: with a base in 4 or 8 bits they are rounded again. `float32` rounds
   * nothing. Default: base.
   */
  dtype?: "base" | "float32" | undefined;
  /**
   * Largest 1 - cosine, over the probe, between vectors of the merged adapter and those that it had before. Default: 0.001, and none
   * where weights are rounded to 4 or 8 bits.
   */
  tolerance?: number | undefined;
  /** Texts to hold the two against each other on. Default: 256 questions that come with the package. */
  probe?: readonly string[] | undefined;
  /** Ends it with ABORTED, at the latest after the batch in hand. */
  signal?: AbortSignal | undefined;
}

const MERGE_ADAPTER_OPTIONS: OptionNames<MergeAdapterOptions> = {
  dtype: true,
  tolerance: true,
  probe: true,
  signal: "AbortSignal",
};

/** What merging an adapter came to. Drift is 1 - cosine between vectors before and after. */
export interface MergeAdapterResult {
  /** Over the texts of the probe. */
  meanDrift: number;
  /** The largest of them. */
  worstDrift: number;
  /** The text that moved furthest. */
  worstText: string;
  /** How many the probe has. */
  texts: number;
  /** Modules that the adapter changes. */
  modules: number;
  /** What the merged weights take beside those of the base, until the adapter is unmerged or removed. */
  bytes: number;
  /** How they are held. */
  dtype: WeightFormat;
  /** What is worth a word: that weights were rounded again, and what it came to. */
  warnings: string[];
}

/** Where an adapter is merged, and how its texts are read. */
export interface MergeSite {
  native: Pick<NativeEncoder, "mergeAdapter" | "removeAdapter">;
  queue: EncodeQueue;
  /** How the base's matrices are held. */
  format: WeightFormat;
  settings: Omit<TextSettings, "adapter">;
}

/**
 * Makes the engine hold `id`, the adapter merged, and measures it. Where this throws it is gone again.
 * @throws MERGE_DRIFT above the tolerance, USAGE, DATA_EMPTY, NOT_FINITE, ENCODER_CLOSED, BUSY, ABORTED, OUT_OF_MEMORY.
 */
export async function mergeHeld(
  name: string,
  adapter: HeldAdapter,
  id: string,
  site: MergeSite,
  options: MergeAdapterOptions,
): Promise<MergeAdapterResult> {
  requireKnownOptions(options, MERGE_ADAPTER_OPTIONS, "encoder.mergeAdapter");
  const { dtype = "base", tolerance } = options;
  if (dtype !== "base" && dtype !== "float32") {
    throw new PeftTrainError("USAGE", `dtype: expected base or float32, found ${String(dtype)}`);
  }
  requireTolerance(tolerance);
  const given = options.probe ?? (await probeTexts());
  requireProbe(given);
  const texts = given.slice(); // the caller may change its array
  if (options.signal?.aborted) {
    const cause: unknown = options.signal.reason;
    throw new PeftTrainError("ABORTED", "mergeAdapter was stopped by its signal", { cause });
  }
  const { native, queue } = site;
  const held = dtype === "base" ? site.format : "float32";
  const merge = await queue.turn(() => native.mergeAdapter(adapter.id, id, dtype === "float32"));
  try {
    const drift = await measure(texts, adapter.id, id, site, options.signal);
    requireNear(drift, held, tolerance, {
      adapter: `${JSON.stringify(name)} beside its base`,
      lastly: "It stays unmerged",
      hint:
        held === "float32"
          ? "Allow more with tolerance."
          : 'Take dtype: "float32", or allow more with tolerance.',
    });
    return {
      meanDrift: drift.mean,
      worstDrift: drift.worst,
      worstText: drift.worstText,
      texts: drift.texts,
      ...merge,
      dtype: held,
      warnings: isQuantized(held) ? [roundingWarning(held, drift)] : [],
    };
  } catch (error) {
    await queue.turn(() => native.removeAdapter(id)).catch(() => {}); // a closed encoder has freed it
    throw error;
  }
}

/** From the adapter beside the base to its merge, by the queue, as any texts. */
async function measure(
  texts: readonly string[],
  from: string,
  to: string,
  { queue, settings }: MergeSite,
  signal: AbortSignal | undefined,
): Promise<VectorDrift> {
  const vectors = (adapter: string): Promise<Float32Array[]> => {
    const all = { ...settings, adapter };
    return queue.encode({ texts, settings: () => all, normalize: true, signal });
  };
  return vectorDrift(texts, await vectors(from), await vectors(to));
}
