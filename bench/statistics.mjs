/** The middle value; the mean of the two in the middle where there are two. */
export function median(values) {
  if (values.length === 0) throw new Error("median of no values");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** What is reported of repeated measurements. */
export function summary(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values), values };
}

/**
 * The median of a[i] / b[i]. Round i took both minutes apart, so that a machine that grows slower from round to round
 * does not count for either side.
 */
export function pairedRatio(a, b) {
  if (a.length !== b.length) throw new Error(`${a.length} values against ${b.length}`);
  return summary(a.map((value, round) => value / b[round]));
}

/** The least cosine of row i of `a` with row i of `b`, both flat with `dimension` numbers a row. */
export function leastCosine(a, b, dimension) {
  if (a.length !== b.length || a.length === 0 || a.length % dimension !== 0)
    throw new Error(`${a.length} and ${b.length} numbers are not rows of ${dimension} each`);
  let least = Number.POSITIVE_INFINITY;
  for (let start = 0; start < a.length; start += dimension) {
    let [dot, aa, bb] = [0, 0, 0];
    for (let i = start; i < start + dimension; i++) {
      dot += a[i] * b[i];
      aa += a[i] * a[i];
      bb += b[i] * b[i];
    }
    const cosine = dot / Math.sqrt(aa * bb);
    least = Math.min(least, cosine); // NaN stays
  }
  return least;
}
