import type { Encoder } from "../encoder.js";

/** Texts on which two models are held against each other. */
export interface Probe {
  texts: readonly string[];
  prefix: string;
  maxLength: number;
}

/** Vectors of a probe's texts, of length 1. */
export function probeVectors(encoder: Encoder, { texts, prefix, maxLength }: Probe): Promise<Float32Array[]> {
  return encoder.encode(texts, { prefix, maxLength, normalize: true });
}
