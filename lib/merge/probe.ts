import { fileURLToPath } from "node:url";
import { readTexts } from "../data/texts.js";
import type { Encoder } from "../encoder.js";

/** Texts of the package's own pairs: enough to know a mean cosine far better than the drift of a merge. */
const OWN_TEXTS = 256;
const OWN_FILE = fileURLToPath(new URL("../../data/pairs/test.csv", import.meta.url));

/** Texts on which two models are held against each other. */
export interface Probe {
  texts: readonly string[];
  prefix: string;
  maxLength: number;
}

/** How far vectors are from those that they are to be: 1 - cosine, over the texts of a probe. */
export interface VectorDrift {
  /** How many. */
  texts: number;
  /** Over all texts; 0 is the same direction. */
  mean: number;
  /** The largest. */
  worst: number;
  /** The text of that one. */
  worstText: string;
}

/** A file of texts, or questions that come with the package. @throws As reading texts does. */
export async function probeTexts(file?: string, column?: string): Promise<string[]> {
  if (file !== undefined) return readTexts(file, column);
  return [...new Set(await readTexts(OWN_FILE, "question1"))].slice(0, OWN_TEXTS);
}

/** Vectors of a probe's texts, of length 1. */
export function probeVectors(encoder: Encoder, { texts, prefix, maxLength }: Probe): Promise<Float32Array[]> {
  return encoder.encode(texts, { prefix, maxLength, normalize: true });
}

export function vectorDrift(
  texts: readonly string[],
  wanted: readonly Float32Array[],
  found: readonly Float32Array[],
): VectorDrift {
  let sum = 0;
  let worst = -1;
  let worstText = "";
  for (const [i, text] of texts.entries()) {
    const away = cosineDistance(wanted[i] as Float32Array, found[i] as Float32Array);
    sum += away;
    if (!(away <= worst)) [worst, worstText] = [away, text];
  }
  return { texts: texts.length, mean: sum / texts.length, worst, worstText };
}

/** 1 - cosine; for vectors near each other half of |a - b|^2, which keeps the digits that a difference from 1 loses. */
function cosineDistance(a: Float32Array, b: Float32Array): number {
  let [aa, bb] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    aa += (a[i] as number) ** 2;
    bb += (b[i] as number) ** 2;
  }
  const [na, nb] = [Math.sqrt(aa), Math.sqrt(bb)];
  let squares = 0;
  for (let i = 0; i < a.length; i++) squares += ((a[i] as number) / na - (b[i] as number) / nb) ** 2;
  return squares / 2;
}
