/** How TIES elects a sign: of the sum of the values, or of the sum of their signs. */
export type MajoritySign = "total" | "frequency";

/** Whether entry `i` of the tensor of source `source` stays. */
export type Mask = (source: number, i: number) => boolean;

/** sum of weight * tensor: https://arxiv.org/abs/2212.04089. */
export function weightedSum(tensors: readonly Float64Array[], weights: readonly number[]): Float64Array {
  const out = new Float64Array((tensors[0] as Float64Array).length);
  for (const [k, tensor] of tensors.entries()) {
    const weight = weights[k] as number;
    for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) + weight * (tensor[i] as number);
  }
  return out;
}

/**
 * TIES without its trimming: at every place the sources whose value has the elected sign are averaged, weighted, and the
 * others left out. A sum of zero elects plus: https://arxiv.org/abs/2306.01708, as PEFT computes it.
 */
export function electSigns(
  tensors: readonly Float64Array[],
  weights: readonly number[],
  majority: MajoritySign,
): Float64Array {
  const out = new Float64Array((tensors[0] as Float64Array).length);
  for (let i = 0; i < out.length; i++) {
    let vote = 0;
    for (const tensor of tensors) {
      const value = tensor[i] as number;
      vote += majority === "total" ? value : Math.sign(value);
    }
    const sign = vote >= 0 ? 1 : -1;
    let sum = 0;
    let agreeing = 0;
    for (const [k, tensor] of tensors.entries()) {
      const value = tensor[i] as number;
      if (Math.sign(value) !== sign) continue;
      sum += value * (weights[k] as number);
      agreeing++;
    }
    out[i] = sum / Math.max(1, agreeing);
  }
  return out;
}

/** Keeps the `density` of a tensor that is largest in magnitude; among equals the first. */
export function keepLargest(tensor: Float64Array, density: number): Float64Array {
  if (density >= 1) return tensor;
  const kept = Math.floor(density * tensor.length);
  const out = new Float64Array(tensor.length);
  if (kept === 0) return out;
  const magnitudes = tensor.map(Math.abs).sort();
  const least = magnitudes[tensor.length - kept] as number;
  let equal = kept; // how many of exactly that magnitude are among them
  for (let i = tensor.length - 1; i >= 0 && (magnitudes[i] as number) > least; i--) equal--;
  for (let i = 0; i < tensor.length; i++) {
    const magnitude = Math.abs(tensor[i] as number);
    if (magnitude > least || (magnitude === least && equal-- > 0)) out[i] = tensor[i] as number;
  }
  return out;
}

/** DARE: keeps what the mask says and divides it by `density`: https://arxiv.org/abs/2311.03099. */
export function dropAndRescale(
  tensor: Float64Array,
  density: number,
  keep: (i: number) => boolean,
): Float64Array {
  if (density >= 1) return tensor;
  return tensor.map((value, i) => (keep(i) ? value / density : 0));
}
