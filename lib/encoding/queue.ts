import { setImmediate } from "node:timers/promises";
import type { Tokenizer } from "../data/tokenizer.js";
import { PeftTrainError } from "../errors.js";
import type { NativeEncoder } from "../native/types.js";
import { adapterChoice } from "./adapter-choice.js";
import { type Batch, fillBatch, packParts } from "./batch.js";
import type { BatchingSettings } from "./batching.js";
import { type CallRequest, EncodeCall } from "./call.js";
import { TextFeed } from "./text-feed.js";

/** Batches that are tokenised ahead of the encoder, so that it does not wait. */
const BATCHES_AHEAD = 2;

/**
 * Shares one native encoder between calls that overlap. Their texts are tokenised in slices (`TextFeed`) and packed into batches of
 * some tokens (`fillBatch`); one batch is one native call. Each batch takes from all calls that wait, so that a large call does not hold
 * up small ones. Other work on the encoder (`turn`) runs between two batches.
 */
export class EncodeQueue {
  /** In the order of their turns. */
  private calls: EncodeCall[] = [];
  private readonly turns: (() => Promise<void>)[] = [];
  private readonly feed: TextFeed;
  private running = false;
  private ranTurn = false;
  private wakeUp: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  private closing: Promise<void> | undefined;

  constructor(
    private readonly native: Pick<NativeEncoder, "encode" | "close">,
    tokenizer: Pick<Tokenizer, "encode">,
    private readonly dimension: number,
    private readonly settings: BatchingSettings,
  ) {
    this.feed = new TextFeed(tokenizer, BATCHES_AHEAD * settings.maxBatchTokens, () => this.wake());
  }

  /** Calls that wait or run, and their texts without a vector so far. */
  get pending(): { calls: number; texts: number } {
    return { calls: this.calls.length, texts: this.calls.reduce((sum, call) => sum + call.waiting, 0) };
  }

  /** One vector a text. @throws BUSY, ENCODER_CLOSED, ABORTED, or what the engine says. */
  async encode(request: CallRequest): Promise<Float32Array[]> {
    this.requireOpen();
    const { maxQueue } = this.settings;
    if (this.calls.length >= maxQueue) {
      throw new PeftTrainError("BUSY", `${maxQueue} encode calls wait already, as many as the queue holds`, {
        hint: "Try again later, give one call many texts, or raise batching.maxQueue.",
      });
    }
    const call = new EncodeCall(request, (done) => this.remove(done));
    if (!call.settled) {
      this.calls.push(call);
      this.feed.add(call);
    }
    return call.promise;
  }

  /** Runs other work on the encoder, alone, as soon as the batch that runs has ended. @throws ENCODER_CLOSED */
  async turn<T>(work: () => Promise<T>): Promise<T> {
    this.requireOpen();
    return this.enqueue(work);
  }

  /** Resolves when every call that was made so far has settled. */
  async drained(): Promise<void> {
    await Promise.allSettled(this.calls.map((call) => call.promise));
  }

  /** Takes nothing more, finishes what was asked for before, and frees the encoder. */
  close(): Promise<void> {
    this.closing ??= this.drained().then(() => this.enqueue(() => this.native.close()));
    return this.closing;
  }

  /** @throws ENCODER_CLOSED */
  requireOpen(): void {
    if (this.closing === undefined) return;
    throw new PeftTrainError("ENCODER_CLOSED", "the encoder is closed", {
      hint: "Open another one with Encoder.load().",
    });
  }

  private enqueue<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.turns.push(() => work().then(resolve, reject));
      this.wake();
    });
  }

  private remove(call: EncodeCall): void {
    this.calls = this.calls.filter((other) => other !== call);
    this.feed.wake(); // it may have been the one that all others waited for
  }

  /** Looks for work once this turn of the event loop is over, so that calls made together run together. */
  private wake(): void {
    if (this.running || this.wakeUp !== undefined) return;
    this.wakeUp = setImmediate().then(() => {
      this.wakeUp = undefined;
      return this.run();
    });
  }

  private async run(): Promise<void> {
    if (this.running) return;
    this.running = true;
    clearTimeout(this.timer);
    for (let work = this.next(); work !== undefined; work = this.next()) await work();
    this.running = false;
  }

  /** Batches and other work by turns, where both wait. */
  private next(): (() => Promise<void>) | undefined {
    const batch = this.ranTurn || this.turns.length === 0 ? this.nextBatch() : undefined;
    this.ranTurn = batch === undefined && this.turns.length > 0;
    return batch === undefined ? this.turns.shift() : () => this.runBatch(batch);
  }

  private nextBatch(): Batch | undefined {
    if (this.mayGrow()) return undefined;
    const batch = fillBatch(this.calls, this.settings);
    if (batch === undefined) return undefined;
    const served = new Set(batch.parts.map(({ call }) => call));
    this.calls = [...this.calls.filter((call) => !served.has(call)), ...served];
    this.feed.wake();
    return batch;
  }

  /** Whether to wait for more calls; sets the timer that ends the wait. */
  private mayGrow(): boolean {
    const { together, maxBatchTokens, maxWaitMs } = this.settings;
    if (!together || maxWaitMs === 0) return false;
    const ready = this.calls.filter((call) => call.readyTokens > 0);
    if (ready.length === 0 || ready.reduce((sum, call) => sum + call.readyTokens, 0) >= maxBatchTokens)
      return false;
    const waitsUntil = Math.min(...ready.map((call) => call.arrivedAt)) + maxWaitMs;
    const left = waitsUntil - performance.now();
    if (left <= 0) return false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.run(), left);
    return true;
  }

  private async runBatch(batch: Batch): Promise<void> {
    const { parts } = batch;
    try {
      await this.runParts(batch);
    } catch (error) {
      if (parts.length === 1) parts[0]?.call.fail(error);
      // One call's adapter or text must not be the failure of all others.
      else for (const part of parts) if (!part.call.settled) await this.runBatch({ ...batch, parts: [part] });
    }
  }

  private async runParts({ parts, normalize }: Batch): Promise<void> {
    const microBatchTokens = this.settings.maxBatchTokens;
    const choice = adapterChoice(parts.flatMap(({ adapters }) => adapters));
    const rows = await this.native.encode(packParts(parts), { ...choice, normalize, microBatchTokens });
    let from = 0;
    for (const { call, texts } of parts) {
      const end = from + texts.length * this.dimension;
      // A copy: no caller sees the vectors of another in its buffer, or keeps them alive.
      await call.addVectors(rows.slice(from, end), this.dimension);
      from = end;
    }
  }
}
