import { setImmediate } from "node:timers/promises";
import { PeftTrainError } from "../errors.js";
import type { TokenBatch } from "../native/types.js";

/** Vectors of repeats that are copied without a look at the event loop: about a millisecond. */
const COPIES_A_TURN = 2048;

/** What is done to a text; texts that are treated alike may share one object. */
export interface TextSettings {
  /** Put before the text. */
  readonly prefix: string;
  /** Tokens, [CLS] and [SEP] counted. */
  readonly maxLength: number;
  /** The engine's name of an adapter; false: the base model. */
  readonly adapter: string | false;
}

export interface CallRequest {
  texts: readonly string[];
  /** Of text i. */
  settings: (i: number) => TextSettings;
  /** L2-normalise the vectors. */
  normalize: boolean;
  signal?: AbortSignal | undefined;
}

/** A text that waits for a batch. */
interface ReadyText {
  ids: Int32Array;
  settings: TextSettings;
  distinct: Distinct;
}

/** Texts of a call that are the same tokens for the same adapter. */
interface Distinct {
  /** Their places in the call, in order; the first is the one that is encoded. */
  places: number[];
  vector?: Float32Array;
}

/**
 * One `encode` call on its way: texts are tokenised in order, taken into batches in order, and done when their vectors are there. A
 * text that comes again is encoded once.
 * `promise` settles once: with all vectors, with the first failure, or with ABORTED as soon as the signal says so.
 */
export class EncodeCall {
  readonly promise: Promise<Float32Array[]>;
  readonly arrivedAt = performance.now();
  readonly texts: readonly string[];
  readonly normalize: boolean;
  /** Texts that were tokenised, and tokens of those that have to be encoded and are in no batch yet. */
  tokenized = 0;
  readyTokens = 0;
  settled = false;

  private readonly rows: Float32Array[];
  private readonly distinct = new Map<string, Distinct>();
  private readonly ready: ReadyText[] = [];
  /** The next of `ready` to be taken. */
  private next = 0;
  /** Taken, and without a vector; in order. */
  private taken: Distinct[] = [];
  private done = 0;
  private resolve!: (rows: Float32Array[]) => void;
  private reject!: (error: unknown) => void;

  constructor(
    private readonly request: CallRequest,
    private readonly onSettled: (call: EncodeCall) => void,
  ) {
    // A copy: the caller may change its array while the call waits.
    this.texts = request.texts.slice();
    this.normalize = request.normalize;
    this.rows = new Array(this.texts.length);
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    if (request.signal?.aborted) this.abort();
    else if (this.texts.length === 0) this.settle(() => this.resolve(this.rows));
    else request.signal?.addEventListener("abort", this.abort);
  }

  /** Of text i. */
  settings(i: number): TextSettings {
    return this.request.settings(i);
  }

  /** Texts without a vector so far. */
  get waiting(): number {
    return this.settled ? 0 : this.texts.length - this.done;
  }

  /** Takes in the tokens of the next texts. */
  addTokens({ ids, cuSeqlens }: TokenBatch): void {
    const bytes = Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength);
    for (let text = 1; text < cuSeqlens.length && !this.settled; text++) {
      const [from, to] = [cuSeqlens[text - 1] as number, cuSeqlens[text] as number];
      const place = this.tokenized++;
      const settings = this.settings(place);
      const key = `${JSON.stringify(settings.adapter)}${bytes.toString("latin1", 4 * from, 4 * to)}`;
      const known = this.distinct.get(key);
      if (known === undefined) {
        const distinct = { places: [place] };
        this.distinct.set(key, distinct);
        this.ready.push({ ids: ids.subarray(from, to), settings, distinct });
        this.readyTokens += to - from;
      } else if (known.vector === undefined) known.places.push(place);
      else this.finish(place, known.vector.slice());
    }
  }

  /** The next text that is tokenised and in no batch. */
  peek(): { length: number; settings: TextSettings } | undefined {
    const text = this.ready[this.next];
    return text && { length: text.ids.length, settings: text.settings };
  }

  /** Tokens of the text that `peek` showed, which is now in a batch. */
  take(): Int32Array {
    const { ids, distinct } = this.ready[this.next++] as ReadyText;
    this.taken.push(distinct);
    this.readyTokens -= ids.length;
    if (this.next === this.ready.length) {
      this.ready.length = 0;
      this.next = 0;
    }
    return ids;
  }

  /** Takes in the vectors of the texts that were taken first: [texts, dimension], of this call alone. */
  async addVectors(vectors: Float32Array, dimension: number): Promise<void> {
    if (this.settled) return;
    let copies = 0;
    const served = this.taken.splice(0, vectors.length / dimension);
    for (const [i, distinct] of served.entries()) {
      const vector = vectors.subarray(i * dimension, (i + 1) * dimension);
      distinct.vector = vector;
      for (const [at, place] of distinct.places.entries()) {
        if (at > 0 && ++copies % COPIES_A_TURN === 0) {
          await setImmediate();
          if (this.settled) return;
        }
        this.finish(place, at === 0 ? vector : vector.slice());
      }
      distinct.places.length = 0;
    }
  }

  private finish(place: number, vector: Float32Array): void {
    this.rows[place] = vector;
    this.done++;
    if (this.done === this.texts.length) this.settle(() => this.resolve(this.rows));
  }

  fail(error: unknown): void {
    this.settle(() => this.reject(error));
  }

  private readonly abort = (): void => {
    const cause: unknown = this.request.signal?.reason;
    this.fail(new PeftTrainError("ABORTED", `encode was stopped by its signal`, { cause }));
  };

  private settle(tell: () => void): void {
    if (this.settled) return;
    this.settled = true;
    this.ready.length = 0;
    this.distinct.clear();
    this.readyTokens = 0;
    this.request.signal?.removeEventListener("abort", this.abort);
    tell();
    this.onSettled(this);
  }
}
