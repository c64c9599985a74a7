/**
 * A cosine as it is told. Rounding takes the product of two vectors that point one way a last digit beyond 1; what is ranked or
 * trained on keeps that digit.
 */
export function toldCosine(computed: number): number {
  return Math.max(-1, Math.min(1, computed));
}
