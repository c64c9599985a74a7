import { PeftTrainError } from "../errors.js";
import type { TokenBatch } from "../native/types.js";

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

/** Tokens of texts that lie one after another in a call. */
interface ReadyTexts {
  tokens: TokenBatch;
  /** The next of them to be taken. */
  next: number;
}

/**
 * One `encode` call on its way: texts are tokenised in order, taken into batches in order, and done when their vectors are there.
 * `promise` settles once: with all vectors, with the first failure, or with ABORTED as soon as the signal says so.
 */
export class EncodeCall {
  readonly promise: Promise<Float32Array[]>;
  readonly arrivedAt = performance.now();
  readonly texts: readonly string[];
  readonly normalize: boolean;
  /** Texts that were tokenised, and tokens of those that are in no batch yet. */
  tokenized = 0;
  readyTokens = 0;
  settled = false;

  private readonly rows: Float32Array[];
  private readonly ready: ReadyTexts[] = [];
  private taken = 0;
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
    if (this.settled) return;
    this.ready.push({ tokens, next: 0 });
    this.tokenized += tokens.cuSeqlens.length - 1;
    this.readyTokens += tokens.ids.length;
  }

  /** The next text that is tokenised and in no batch. */
  peek(): { length: number; settings: TextSettings } | undefined {
    const texts = this.ready[0];
    if (texts === undefined) return undefined;
    const { cuSeqlens } = texts.tokens;
    const length = (cuSeqlens[texts.next + 1] as number) - (cuSeqlens[texts.next] as number);
    return { length, settings: this.settings(this.taken) };
  }

  /** Tokens of the text that `peek` showed, which is now in a batch. */
  take(): Int32Array {
    const texts = this.ready[0] as ReadyTexts;
    const { ids, cuSeqlens } = texts.tokens;
    const taken = ids.subarray(cuSeqlens[texts.next], cuSeqlens[texts.next + 1]);
    texts.next++;
    if (texts.next === cuSeqlens.length - 1) this.ready.shift();
    this.readyTokens -= taken.length;
    this.taken++;
    return taken;
  }

  /** Takes in the vectors of the texts that have waited longest: [texts, dimension], of this call alone. */
  addVectors(vectors: Float32Array, dimension: number): void {
    if (this.settled) return;
    for (let at = 0; at < vectors.length; at += dimension) {
      this.rows[this.done++] = vectors.subarray(at, at + dimension);
    }
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
    this.readyTokens = 0;
    this.request.signal?.removeEventListener("abort", this.abort);
    tell();
    this.onSettled(this);
  }
}
