import { Encoder } from "../encoder.js";
import type { LoadOptions } from "../encoder-options.js";
import { type VectorDrift, vectorDrift } from "../metrics/vector-drift.js";
import { probeVectors } from "./probe.js";

/** How far two adapters move texts: from the base, and from each other. 1 - cosine. */
export interface AdapterDrift {
  a: VectorDrift;
  b: VectorDrift;
  between: VectorDrift;
}

/**
 * Encodes texts with a base model, and with each of two adapters on it, each as it was trained: with its prefix, length and pooling.
 * The base takes those of the first.
 * @throws As for loading an encoder.
 */
export async function measureAdapters(
  model: string,
  adapters: readonly [string, string],
  texts: readonly string[],
  options: Pick<LoadOptions, "threads" | "engine" | "signal" | "onDownload" | "onNote"> = {},
): Promise<AdapterDrift> {
  let base: Float32Array[] = [];
  const vectors: Float32Array[][] = [];
  for (const [i, adapter] of adapters.entries()) {
    await using encoder = await Encoder.load(model, { ...options, adapter });
    const probe = { texts, ...encoder.defaults };
    vectors.push(await probeVectors(encoder, probe));
    if (i === 0) base = await encoder.encode(texts, { ...encoder.defaults, adapter: false });
  }
  const [a, b] = vectors as [Float32Array[], Float32Array[]];
  return {
    a: vectorDrift(texts, base, a),
    b: vectorDrift(texts, base, b),
    between: vectorDrift(texts, a, b),
  };
}
