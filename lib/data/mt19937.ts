const N = 624;
const M = 397;

/**
 * The Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), seeded and read as numpy's `RandomState` does, so that
 * anything drawn here can be drawn again in Python.
 */
export class MT19937 {
  private readonly state = new Uint32Array(N);
  private next = N;

  /** @param seed One number from 0 to 2^32 - 1, or several, as `RandomState(seed)` takes them. */
  constructor(seed: number | readonly number[]) {
    if (typeof seed === "number") this.seed(seed);
    else this.seedByArray(seed);
  }

  /** Uniform over 0 .. 2^32 - 1. */
  uint32(): number {
    if (this.next === N) this.twist();
    let y = this.state[this.next++] as number;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  /** Uniform over [0, 1) in steps of 2^-53: the next value of `rand()`. */
  double(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 0x4000000 + low) / 0x20000000000000;
  }

  /** Uniform over 0 .. `max`, by masking and rejection as numpy's legacy `random_interval`. */
  upTo(max: number): number {
    if (max === 0) return 0;
    const mask = 0xffffffff >>> Math.clz32(max);
    for (;;) {
      const value = (this.uint32() & mask) >>> 0;
      if (value <= max) return value;
    }
  }

  /** `permutation(count)`: 0 .. `count` - 1 in random order (Fisher and Yates, from the end). */
  permutation(count: number): Int32Array {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.upTo(i);
      const swapped = order[i] as number;
      order[i] = order[j] as number;
      order[j] = swapped;
    }
    return order;
  }

  private seed(seed: number): void {
    const { state } = this;
    state[0] = seed;
    for (let i = 1; i < N; i++) {
      const previous = state[i - 1] as number;
      state[i] = Math.imul(1812433253, previous ^ (previous >>> 30)) + i;
    }
    this.next = N;
  }

  private seedByArray(key: readonly number[]): void {
    const { state } = this;
    this.seed(19650218);
    let i = 1;
    const mix = (factor: number): number => {
      const previous = state[i - 1] as number;
      return (state[i] as number) ^ Math.imul(previous ^ (previous >>> 30), factor);
    };
    const advance = (): void => {
      if (++i < N) return;
      state[0] = state[N - 1] as number;
      i = 1;
    };
    for (let k = 0, j = 0; k < Math.max(N, key.length); k++) {
      state[i] = mix(1664525) + (key[j] as number) + j;
      advance();
      j = (j + 1) % key.length;
    }
    for (let k = 0; k < N - 1; k++) {
      state[i] = mix(1566083941) - i;
      advance();
    }
    state[0] = 0x80000000;
  }

  private twist(): void {
    const { state } = this;
    for (let k = 0; k < N; k++) {
      const y = ((state[k] as number) & 0x80000000) | ((state[(k + 1) % N] as number) & 0x7fffffff);
      state[k] = (state[(k + M) % N] as number) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }
}
