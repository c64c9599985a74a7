import type { TokenBatch } from "../native/types.js";

/** Token ids of many texts in one growing array: 4 bytes a token and 8 bytes a text, no strings. */
export class TokenBuffer {
  private ids: Int32Array;
  private offsets: Float64Array;
  private used = 0;
  private count = 0;

  constructor(tokens = 1024, texts = 64) {
    this.ids = new Int32Array(tokens);
    this.offsets = new Float64Array(texts + 1);
  }

  /** Number of texts so far. */
  get length(): number {
    return this.count;
  }

  /** Adds one token to the text in progress. */
  push(id: number): void {
    if (this.used === this.ids.length) this.reserve(1);
    this.ids[this.used++] = id;
  }

  /** Adds the first `limit` of `ids` to the text in progress. */
  pushAll(ids: readonly number[], limit = ids.length): void {
    const taken = Math.min(ids.length, limit);
    if (this.used + taken > this.ids.length) this.reserve(taken);
    for (let i = 0; i < taken; i++) this.ids[this.used++] = ids[i] as number;
  }

  /** Closes the text in progress; the next token starts another. */
  endText(): void {
    this.count++;
    if (this.count >= this.offsets.length) {
      const larger = new Float64Array(this.offsets.length * 2);
      larger.set(this.offsets);
      this.offsets = larger;
    }
    this.offsets[this.count] = this.used;
  }

  /** Adds every text of `batch`. */
  pushBatch(batch: TokenBatch): void {
    this.reserve(batch.ids.length);
    this.ids.set(batch.ids, this.used);
    const base = this.used;
    for (let i = 1; i < batch.cuSeqlens.length; i++) {
      this.used = base + (batch.cuSeqlens[i] as number);
      this.endText();
    }
  }

  /** Exactly sized copies: text i is `ids[offsets[i] .. offsets[i + 1])`. */
  finish(): { ids: Int32Array; offsets: Float64Array } {
    return { ids: this.ids.slice(0, this.used), offsets: this.offsets.slice(0, this.count + 1) };
  }

  private reserve(more: number): void {
    const needed = this.used + more;
    if (needed <= this.ids.length) return;
    // Grow by half: large sets would otherwise hold up to twice their size.
    const larger = new Int32Array(Math.max(needed, Math.ceil(this.ids.length * 1.5)));
    larger.set(this.ids.subarray(0, this.used));
    this.ids = larger;
  }
}
