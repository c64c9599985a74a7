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

/** Of vectors of the same texts. */
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
