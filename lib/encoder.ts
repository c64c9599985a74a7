import { type AdapterFolder, openAdapterFolder } from "./adapter/folder.js";
import type { ExampleColumns } from "./data/example-layout.js";
import { type ExampleSource, loadExamples } from "./data/examples.js";
import type { Tokenizer } from "./data/tokenizer.js";
import { embedTexts, encodingMicroBatch } from "./embed.js";
import { PeftTrainError } from "./errors.js";
import type { HubAccess } from "./hub/access.js";
import { hubSettings } from "./hub/settings.js";
import { type ModelFolder, openModelFolder } from "./model/folder.js";
import { chooseStorage, type StorageRequest } from "./model/storage.js";
import { defaultMaxLength, loadTokenizer, requireMaxLength } from "./model-tokenizer.js";
import { loadEngine } from "./native/load.js";
import type {
  EncoderInfo,
  MemoryPlan,
  NativeEncoder,
  NativeEngine,
  Pooling,
  WeightStorage,
} from "./native/types.js";
import {
  type EvalMetrics,
  evaluateExamples,
  type LabelMetrics,
  requireMeasurable,
} from "./train/evaluation/evaluate.js";
import { type OptionName, TRAIN_OPTIONS } from "./train/options/option-table.js";
import { parseOption } from "./train/options/option-value.js";
import { type QuantizeSettings, quantizeRequest } from "./train/options/quantize-settings.js";

export interface LoadOptions {
  /** Folder of an adapter that this package or PEFT wrote. */
  adapter?: string | undefined;
  /** `cpu` (the default), `cuda` or `cuda:N`. */
  device?: string | undefined;
  /** Threads of the matrix products; 0, the default, takes one a physical core. */
  threads?: number | undefined;
  /** Default: what the adapter was trained with, or what the model's folder says. */
  pooling?: Pooling | undefined;
  /** Hold the frozen matrices in 4 or 8 bits. Default: as the folder has them. */
  quantize?: QuantizeSettings["type"] | QuantizeSettings | undefined;
  /** How frozen matrices are held that are not quantised. Default: float32. */
  dtype?: "float32" | "float16" | "bfloat16" | undefined;
  /** Bytes of a model or adapter of the Hub that are here, and in all. */
  onDownload?: ((file: string, bytesDone: number, bytesTotal: number) => void) | undefined;
  /** What is worth a word, such as a Hub that does not answer while the cache does. */
  onNote?: ((message: string) => void) | undefined;
  /** Token for the Hub. Default: HF_TOKEN, or that of `hf auth login`. */
  hubToken?: string | undefined;
  /** Ends a download. */
  signal?: AbortSignal | undefined;
  /** Where the engine comes from; for tests, and for programs that set libtorch up first. */
  engine?: (() => NativeEngine | Promise<NativeEngine>) | undefined;
}

export interface EncodeTextsOptions {
  /** Put before every text. Default: what the adapter's first question was trained with, or nothing. */
  prefix?: string | undefined;
  /** Tokens of a text, [CLS] and [SEP] counted. Default: as the adapter was trained, or 128. */
  maxLength?: number | undefined;
  /** L2-normalise, so that a dot product is a cosine. Default: true. */
  normalize?: boolean | undefined;
  /** False gives the embeddings of the base model. Default: true. */
  adapter?: boolean | undefined;
}

export interface EvaluateFileOptions {
  /**
   * Names of the columns; default: question1, question2, is_duplicate. With `negatives` the file is measured as triplets,
   * else with `score` as scored pairs.
   */
  columns?: Partial<ExampleColumns> | undefined;
  /** Default: as the adapter was trained, or `query: `. */
  question1Prefix?: string | undefined;
  question2Prefix?: string | undefined;
  maxLength?: number | undefined;
  /** Examples encoded at a time. Default: 128. */
  batchSize?: number | undefined;
  /** False measures the base model. Default: true. */
  adapter?: boolean | undefined;
  /** Bytes of the file read, and in all (0 where that cannot be known). */
  onRead?: ((bytesRead: number, bytesTotal: number) => void) | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Of labelled pairs. */
export interface EvaluateLabelsOptions extends EvaluateFileOptions {
  columns?: Pick<Partial<ExampleColumns>, "question1" | "question2" | "label"> | undefined;
}

/** What training puts before both questions unless it is told otherwise, so that both measure the same. */
const DEFAULT_PREFIX: string = TRAIN_OPTIONS.prefix.default;
/** Texts that are tokenised and sorted by length together. */
const TEXTS_AT_A_TIME = 8192;

/**
 * A loaded sentence encoder. Calls may overlap: they run one after another, in the order they were made.
 *
 * @example
 * await using encoder = await Encoder.load("models/e5-small-v2", { adapter: "out" });
 * const [vector] = await encoder.encode(["how do I learn to swim"]);
 */
export class Encoder implements AsyncDisposable {
  private running: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly model: ModelFolder,
    /** Undefined without an adapter. */
    readonly adapter: AdapterFolder | undefined,
    private readonly tokenizer: Tokenizer,
    private readonly native: NativeEncoder,
    /** How the frozen matrices are held; undefined for float32. */
    readonly storage: WeightStorage | undefined,
  ) {}

  /**
   * Loads a model folder in Hugging Face layout, and an adapter onto it. What is no folder is taken for a name on the
   * Hugging Face Hub, `owner/name` or `owner/name@revision`, and brought into the cache that Python shares.
   * @throws USAGE, FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_UNSUPPORTED, MODEL_CORRUPT, ADAPTER_MISMATCH (the adapter
   * belongs to another base), ADAPTER_UNSUPPORTED, ALREADY_QUANTIZED, QUANT_STATE, NOT_FINITE, LIBTORCH_MISSING, DEVICE_UNAVAILABLE, NOT_YET_AVAILABLE; HUB_NOT_FOUND,
   * HUB_ACCESS, DOWNLOAD_FAILED, ABORTED.
   */
  static async load(model: string, options: LoadOptions = {}): Promise<Encoder> {
    return Encoder.loadAs(model, quantizeRequest(options.quantize, options.dtype), options);
  }

  /**
   * As `load`, for weights that options of the command line ask for.
   * @internal
   */
  static async loadAs(
    model: string,
    request: StorageRequest,
    options: Omit<LoadOptions, "quantize" | "dtype">,
  ): Promise<Encoder> {
    const pooling = checked("pooling", "pooling", options.pooling);
    const device = checked("device", "device", options.device) ?? "cpu";
    const threads = checked("num_threads", "threads", options.threads) ?? 0;
    const hub: HubAccess = {
      settings: hubSettings(options.hubToken),
      signal: options.signal,
      onProgress: options.onDownload,
      onNote: options.onNote,
    };
    const folder = await openModelFolder(model, hub);
    const storage = chooseStorage(request, folder);
    const adapter =
      options.adapter === undefined ? undefined : await openAdapterFolder(options.adapter, folder, hub);
    const tokenizer = await loadTokenizer(folder);
    const engine = await (options.engine ?? loadEngine)();
    const native = await engine.open({
      weightsPath: folder.weightsPath,
      shape: folder.shape,
      pooling: pooling ?? adapter?.record?.pooling ?? folder.pooling,
      device,
      threads,
      ...(storage && { storage }),
    });
    try {
      if (adapter !== undefined) await native.loadAdapter(adapter.weightsPath, adapter.spec);
      return new Encoder(folder, adapter, tokenizer, native, storage);
    } catch (error) {
      await native.close();
      throw error;
    }
  }

  /** Numbers in one vector. */
  get dimension(): number {
    return this.model.shape.hiddenSize;
  }

  /** What texts get as prefix and as greatest length unless a call says otherwise. */
  get defaults(): { prefix: string; maxLength: number } {
    const record = this.adapter?.record;
    return {
      prefix: record?.question1Prefix ?? "",
      maxLength: record?.maxLength ?? defaultMaxLength(this.model),
    };
  }

  /** Device, threads and sizes. Waits for running calls. */
  info(): Promise<EncoderInfo> {
    return this.exclusive(async () => this.native.info());
  }

  /** Bytes that encoding takes at its peak, beside libtorch itself. Waits for running calls. */
  memory(): Promise<MemoryPlan> {
    return this.exclusive(async () => this.native.memory(encodingMicroBatch(this.native), false));
  }

  /** One vector of `dimension` float32 a text, in the order of the texts. */
  encode(texts: readonly string[], options: EncodeTextsOptions = {}): Promise<Float32Array[]> {
    return this.exclusive(async () => {
      requireTexts(texts);
      const rows: Float32Array[] = [];
      for (let i = 0; i < texts.length; i += TEXTS_AT_A_TIME) {
        const vectors = await this.embed(texts.slice(i, i + TEXTS_AT_A_TIME), options);
        for (let at = 0; at < vectors.length; at += this.dimension) {
          rows.push(vectors.subarray(at, at + this.dimension));
        }
      }
      return rows;
    });
  }

  /**
   * Cosine of each text of `a` with the one of `b` in the same place. `a` takes the prefix of the first question and
   * `b` that of the second, unless `prefix` is given for both.
   */
  async similarity(
    a: readonly string[],
    b: readonly string[],
    options: Omit<EncodeTextsOptions, "normalize"> = {},
  ): Promise<Float32Array> {
    if (a.length !== b.length) {
      throw new PeftTrainError(
        "USAGE",
        `similarity needs as many texts as texts, got ${a.length} and ${b.length}`,
      );
    }
    const secondPrefix = options.prefix ?? this.adapter?.record?.question2Prefix;
    const [first, second] = await Promise.all([
      this.encode(a, { ...options, normalize: true }),
      this.encode(b, { ...options, normalize: true, prefix: secondPrefix }),
    ]);
    return Float32Array.from(first, (vector, i) => dot(vector, second[i] as Float32Array));
  }

  /**
   * Measures cosine similarity on the pairs or triplets of a file, with the prefixes that the adapter was trained with: how
   * well it tells labelled pairs apart, how it goes together with scores, or how often a positive is nearer than a negative.
   * @throws As for reading pairs: FILE_NOT_FOUND, DATA_COLUMN, DATA_LABEL, DATA_MALFORMED, DATA_EMPTY.
   */
  evaluate(file: string, options?: EvaluateLabelsOptions): Promise<LabelMetrics>;
  evaluate(file: string, options: EvaluateFileOptions): Promise<EvalMetrics>;
  evaluate(file: string, options: EvaluateFileOptions = {}): Promise<EvalMetrics> {
    return this.exclusive(async () => {
      const { record } = this.adapter ?? {};
      const maxLength = checked("max_length", "maxLength", options.maxLength) ?? this.defaults.maxLength;
      const batchSize = checked("per_device_eval_batch_size", "batchSize", options.batchSize) ?? 128;
      requireMaxLength(maxLength, this.model);
      const { columns = {} } = options;
      const kind = columns.negatives?.length ? "negatives" : columns.score ? "scores" : "labels";
      const source: ExampleSource = {
        path: file,
        columns,
        kinds: [kind],
        question1Prefix: options.question1Prefix ?? record?.question1Prefix ?? DEFAULT_PREFIX,
        question2Prefix: options.question2Prefix ?? record?.question2Prefix ?? DEFAULT_PREFIX,
        maxLength,
      };
      const stopped = (): boolean => options.signal?.aborted ?? false;
      const dataset = await loadExamples(source, this.tokenizer, (bytesRead, bytesTotal) => {
        if (stopped()) throw evaluationStopped(file);
        options.onRead?.(bytesRead, bytesTotal);
      });
      requireMeasurable(dataset, columns.label);
      const metrics = await evaluateExamples(this.native, dataset, {
        batchSize,
        adapter: this.adapter !== undefined && (options.adapter ?? true),
        onProgress: options.onProgress,
        stopped,
      });
      if (metrics === undefined) throw evaluationStopped(file);
      return metrics;
    });
  }

  /** Frees the model, once running calls have ended. */
  close(): Promise<void> {
    return this.exclusive(() => this.native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async embed(texts: readonly string[], options: EncodeTextsOptions): Promise<Float32Array> {
    const { defaults } = this;
    const prefix = options.prefix ?? defaults.prefix;
    const maxLength = checked("max_length", "maxLength", options.maxLength) ?? defaults.maxLength;
    requireMaxLength(maxLength, this.model);
    const { ids, cuSeqlens } = await this.tokenizer.encode(
      prefix === "" ? texts : texts.map((text) => prefix + text),
      maxLength,
    );
    const vectors = await embedTexts(
      this.native,
      { ids, offsets: cuSeqlens },
      {
        adapter: this.adapter !== undefined && (options.adapter ?? true),
        normalize: options.normalize ?? true,
      },
    );
    return vectors as Float32Array;
  }

  private exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.running.then(work);
    this.running = result.catch(() => {});
    return result;
  }
}

/** The command line's range and words for the same option. @throws USAGE */
function checked<T>(option: OptionName, name: string, value: T | undefined): T | undefined {
  return value === undefined ? undefined : (parseOption(option, value, () => name) as T);
}

/** A lone string would be taken for a list of letters. @throws USAGE */
function requireTexts(texts: readonly unknown[]): void {
  const at = Array.isArray(texts) ? texts.findIndex((text) => typeof text !== "string") : undefined;
  if (at === -1) return;
  const found = at === undefined ? typeof texts : `${typeof texts[at]} at ${at}`;
  throw new PeftTrainError("USAGE", `texts: expected an array of strings, found ${found}`);
}

function evaluationStopped(file: string): PeftTrainError {
  return new PeftTrainError("ABORTED", `evaluation of ${file} was stopped`);
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
