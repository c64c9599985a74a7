/** The best documents for one query among those that were offered: by score, of equal scores the lower rank first. */
export class TopHits {
  private readonly scores: Float64Array;
  private readonly found: Int32Array;
  private count = 0;

  /**
   * @param depth Documents that are kept.
   * @param ranks Of every document, for ties: without them the result would depend on the order of the offers.
   */
  constructor(
    depth: number,
    private readonly ranks: Int32Array,
  ) {
    this.scores = new Float64Array(depth);
    this.found = new Int32Array(depth);
  }

  offer(document: number, score: number): void {
    const { scores, found } = this;
    const depth = scores.length;
    if (this.count === depth && !this.isBefore(document, score, depth - 1)) return;
    let at = this.count < depth ? this.count++ : depth - 1;
    // Most documents are turned away above, so that shifting the few that are not is cheaper than a heap.
    for (; at > 0 && this.isBefore(document, score, at - 1); at--) {
      scores[at] = scores[at - 1] as number;
      found[at] = found[at - 1] as number;
    }
    scores[at] = score;
    found[at] = document;
  }

  /** The best first. */
  get documents(): Int32Array {
    return this.found.subarray(0, this.count);
  }

  private isBefore(document: number, score: number, at: number): boolean {
    const other = this.scores[at] as number;
    if (score !== other) return score > other;
    return (this.ranks[document] as number) < (this.ranks[this.found[at] as number] as number);
  }
}
