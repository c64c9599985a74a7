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
  /** Holds its tokens. */
  tokens: TokenBatch;
  /** Its number among them. */
  text: number;
  /** Its place in the call. */
  place: number;
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
  /** Where each text came first, by what is done to it. Keys are the caller's own strings: a call of a million texts holds no others. */
  private readonly first = new Map<TextSettings, Map<string, number>>();
  /** Places of the texts that came again before the vector of the first was there. */
  private readonly again = new Map<number, number[]>();
  private readonly ready: ReadyText[] = [];
  /** The next of `ready` to be taken. */
  private next = 0;
  /** Places of the texts that are taken and without a vector; in order. */
  private taken: number[] = [];
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
  addTokens(tokens: TokenBatch): void {
    const { length } = tokens.cuSeqlens;
    for (let text = 0; text < length - 1 && !this.settled; text++) {
      const place = this.tokenized++;
      const first = this.firstPlace(place);
      const vector = this.rows[first];
      if (first === place) {
        this.ready.push({ tokens, text, place });
        this.readyTokens += lengthOf(tokens, text);
      } else if (vector !== undefined) {
        this.finish(place, vector.slice());
      } else {
        const places = this.again.get(first);
        if (places === undefined) this.again.set(first, [place]);
        else places.push(place);
      }
    }
  }

  /** The next text that is tokenised and in no batch. */
  peek(): { length: number; settings: TextSettings } | undefined {
    const next = this.ready[this.next];
    return next && { length: lengthOf(next.tokens, next.text), settings: this.settings(next.place) };
  }

  /** Tokens of the text that `peek` showed, which is now in a batch. */
  take(): Int32Array {
    const { tokens, text, place } = this.ready[this.next++] as ReadyText;
    const ids = tokens.ids.subarray(tokens.cuSeqlens[text], tokens.cuSeqlens[text + 1]);
    this.taken.push(place);
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
    for (const [i, first] of this.taken.splice(0, vectors.length / dimension).entries()) {
      const vector = vectors.subarray(i * dimension, (i + 1) * dimension);
      const again = this.again.get(first);
      this.again.delete(first);
      this.finish(first, vector);
      for (const place of again ?? []) {
        if (++copies % COPIES_A_TURN === 0) {
          await setImmediate();
          if (this.settled) return;
        }
        this.finish(place, vector.slice());
      }
    }
  }

  /** Where the text of a place came first with the same done to it: there, or before. */
  private firstPlace(place: number): number {
    const settings = this.settings(place);
    let places = this.first.get(settings);
    if (places === undefined) {
      places = new Map();
      this.first.set(settings, places);
    }
    const text = this.texts[place] as string;
    const found = places.get(text);
    if (found === undefined) places.set(text, place);
    return found ?? place;
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
    this.first.clear();
    this.again.clear();
    this.readyTokens = 0;
    this.request.signal?.removeEventListener("abort", this.abort);
    tell();
    this.onSettled(this);
  }
}

function lengthOf({ cuSeqlens }: TokenBatch, text: number): number {
  return (cuSeqlens[text + 1] as number) - (cuSeqlens[text] as number);
}
