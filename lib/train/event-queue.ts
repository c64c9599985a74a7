/**
 * Events on their way from a run to whoever iterates it. They wait until they are asked for; while nobody iterates, those
 * that only show progress do not, so that a long run whose result alone is awaited takes no memory for them.
 */
export class EventQueue<T> implements AsyncIterableIterator<T> {
  private readonly waiting: T[] = [];
  private iterating = false;
  private wake: (() => void) | undefined;
  private ended = false;
  private failure: { error: unknown } | undefined;

  constructor(private readonly isProgress: (event: T) => boolean) {}

  push(event: T): void {
    if (!this.iterating && this.isProgress(event)) return;
    this.waiting.push(event);
    this.wake?.();
  }

  /** No more events; with an error, iteration ends by throwing it. */
  end(failure?: { error: unknown }): void {
    this.ended = true;
    this.failure = failure;
    this.wake?.();
  }

  async next(): Promise<IteratorResult<T>> {
    this.iterating = true;
    for (;;) {
      if (this.waiting.length > 0) return { done: false, value: this.waiting.shift() as T };
      if (this.failure !== undefined) {
        const { error } = this.failure;
        this.failure = undefined;
        throw error;
      }
      if (this.ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  /** Whoever left the iteration may come back; until then it is as before. */
  async return(): Promise<IteratorResult<T>> {
    this.iterating = false;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    this.iterating = true;
    return this;
  }
}
