import { crc32 } from "node:zlib";

/** Which tensor of a module is masked: A, B, or their product. */
export type Masked = "A" | "B" | "delta";

const TENSORS: Record<Masked, number> = { A: 0, B: 1, delta: 2 };

/**
 * The mask that DARE draws, a pure function of its place: entry `i` of a tensor of module `name` in source `source` stays
 * where the (i mod 4)-th word of Philox4x32-10 at the counter (i div 4, CRC-32 of the name, 0, 1 or 2 for A, B or their
 * product, source) under the key (seed mod 2^32, seed div 2^32) is below density * 2^32. So a mask does not depend on
 * the order of the work, nor on which other modules there are.
 */
export function dareMask(
  seed: number,
  name: string,
  tensor: Masked,
  density: number,
): (source: number) => (i: number) => boolean {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32)] as const;
  const place = crc32(name);
  const limit = density * 2 ** 32;
  return (source) => {
    const counter = new Uint32Array(4);
    const words = new Uint32Array(4);
    let block = -1;
    return (i) => {
      const wanted = Math.floor(i / 4);
      if (wanted !== block) {
        block = wanted;
        counter.set([block, place, TENSORS[tensor], source]);
        philox(counter, key, words);
      }
      return (words[i % 4] as number) < limit;
    };
  };
}

const [M0, M1] = [0xd2511f53, 0xcd9e8d57];
const [W0, W1] = [0x9e3779b9, 0xbb67ae85];

/** Philox4x32-10 (Salmon et al., 2011): the same function as native/kernels/philox.h. */
export function philox(counter: Uint32Array, key: readonly [number, number], out: Uint32Array): void {
  out.set(counter);
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [c0, c1, c2, c3] = out as unknown as [number, number, number, number];
    out[0] = highProduct(M1, c2) ^ c1 ^ k0;
    out[1] = Math.imul(M1, c2);
    out[2] = highProduct(M0, c0) ^ c3 ^ k1;
    out[3] = Math.imul(M0, c0);
    k0 = (k0 + W0) >>> 0;
    k1 = (k1 + W1) >>> 0;
  }
}

/** Upper 32 bits of a product of two 32-bit numbers. */
function highProduct(x: number, y: number): number {
  const [xh, xl] = [x >>> 16, x & 0xffff];
  const [yh, yl] = [y >>> 16, y & 0xffff];
  const middle = xh * yl + Math.floor((xl * yl) / 65536);
  const carry = xl * yh + (middle % 65536);
  return xh * yh + Math.floor(middle / 65536) + Math.floor(carry / 65536);
}
