import path from "node:path";
import { setImmediate } from "node:timers/promises";
import { type AdapterFolder, openAdapterFolder } from "./adapter/folder.js";
import { DEFAULT_ADAPTER, type EncoderAdapter, LoadedAdapters, requireOneEach } from "./adapter/loaded.js";
import { type AdapterRecord, RECORD_FILE, readRecord } from "./adapter/record.js";
import type { RetrievalFiles } from "./data/retrieval-set.js";
import type { Tokenizer } from "./data/tokenizer.js";
import { encodingMicroBatch } from "./embed.js";
import {
  COUNT_OPTIONS,
  type CountTokensOptions,
  ENCODE_OPTIONS,
  type EncodeTextsOptions,
  EVALUATE_OPTIONS,
  type EvaluateFileOptions,
  type EvaluateLabelsOptions,
  LOAD_OPTIONS,
  type LoadOptions,
  RETRIEVAL_OPTIONS,
  type RetrievalOptions,
  SIMILARITY_OPTIONS,
  type SimilarityOptions,
} from "./encoder-options.js";
import { type BatchingOptions, batchingSettings } from "./encoding/batching.js";
import type { TextSettings } from "./encoding/call.js";
import { checkedOption } from "./encoding/checked-option.js";
import { countTokens } from "./encoding/count-tokens.js";
import { EncoderAdapters, type Side, type TextDefaults } from "./encoding/encoder-adapters.js";
import { type Measured, measureExamples, measureRetrieval } from "./encoding/measure.js";
import type { MergeAdapterOptions, MergeAdapterResult } from "./encoding/merge-adapter.js";
import { EncodeQueue } from "./encoding/queue.js";
import { PeftTrainError } from "./errors.js";
import type { HubAccess } from "./hub/access.js";
import { hubSettings } from "./hub/settings.js";
import { toldCosine } from "./metrics/cosine.js";
import { type ModelFolder, openModelFolder } from "./model/folder.js";
import { type ModelPrompts, readPrompts } from "./model/prompts.js";
import { chooseStorage, type StorageRequest } from "./model/storage.js";
import { loadTokenizer, requireMaxLength } from "./model-tokenizer.js";
import { loadEngine } from "./native/load.js";
import type { EncoderInfo, MemoryPlan, NativeEncoder, Pooling, WeightStorage } from "./native/types.js";
import { requireKnownOptions } from "./option-names.js";
import type { EvalMetrics, LabelMetrics } from "./train/evaluation/evaluate.js";
import type { RetrievalMetrics } from "./train/evaluation/evaluate-retrieval.js";
import { quantizeRequest } from "./train/options/quantize-settings.js";

/** How much an encoder has still to do. */
export interface PendingCalls {
  /** Of `encode`, that wait or run. */
  calls: number;
  /** Of these calls, without a vector so far. */
  texts: number;
}

/** Cosines between two looks at the event loop. */
const COSINES_A_TURN = 1024;

/** Tells of encoders that nobody closed; the engine frees their memory all the same. */
const collectedWhileOpen = new FinalizationRegistry<string>((model) => {
  process.emitWarning(`an Encoder of ${model} was garbage collected while it was open`, {
    type: "PeftTrainWarning",
    code: "ENCODER_NOT_CLOSED",
    detail: "Call close() when it is no longer needed, or hold it with `await using`.",
  });
});

/**
 * A loaded sentence encoder. Calls may overlap: `encode` calls are batched together, and everything else takes its turn between
 * two batches.
 *
 * @example
 * await using encoder = await Encoder.load("models/e5-small-v2", { adapter: "out" });
 * const [vector] = await encoder.encode(["how do I learn to swim"]);
 */
export class Encoder implements AsyncDisposable {
  private readonly queue: EncodeQueue;
  private readonly engineInfo: EncoderInfo;
  private readonly held: EncoderAdapters;

  private constructor(
    /** The base model's folder. */
    readonly model: ModelFolder,
    loaded: LoadedAdapters,
    private readonly tokenizer: Tokenizer,
    private readonly native: NativeEncoder,
    /** How the frozen matrices are held; undefined for float32. */
    readonly storage: WeightStorage | undefined,
    record: AdapterRecord | undefined,
    prompts: ModelPrompts | undefined,
    pooling: Pooling,
    hub: HubAccess,
    batching: BatchingOptions | undefined,
  ) {
    this.engineInfo = native.info();
    const settings = batchingSettings(batching, this.engineInfo.device);
    this.queue = new EncodeQueue(native, tokenizer, this.dimension, settings);
    const base = { model, record, prompts, pooling, storage };
    this.held = new EncoderAdapters(base, loaded, native, this.queue, hub);
    collectedWhileOpen.register(this, model.name, this);
  }

  /**
   * Loads a model folder in Hugging Face layout, and an adapter onto it. What is no folder is taken for a name on the
   * Hugging Face Hub, `owner/name` or `owner/name@revision`, and brought into the cache that Python shares.
   * @throws USAGE, FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_UNSUPPORTED, MODEL_CORRUPT, ADAPTER_MISMATCH (the adapter
   * belongs to another base), ADAPTER_UNSUPPORTED, ALREADY_QUANTIZED, QUANT_STATE, NOT_FINITE, LIBTORCH_MISSING, DEVICE_UNAVAILABLE, NOT_YET_AVAILABLE; HUB_NOT_FOUND,
   * HUB_ACCESS, DOWNLOAD_FAILED, ABORTED.
   */
  static async load(model: string, options: LoadOptions = {}): Promise<Encoder> {
    requireKnownOptions(options, LOAD_OPTIONS, "Encoder.load");
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
    const pooling = checkedOption("pooling", "pooling", options.pooling);
    const device = checkedOption("device", "device", options.device) ?? "cpu";
    const threads = checkedOption("num_threads", "threads", options.threads) ?? 0;
    batchingSettings(options.batching, device);
    const hub: HubAccess = {
      settings: hubSettings(options.hubToken),
      signal: options.signal,
      onProgress: options.onDownload,
      onNote: options.onNote,
    };
    const folder = await openModelFolder(model, hub);
    const storage = chooseStorage(request, folder);
    const adapter =
      options.adapter === undefined
        ? undefined
        : await openAdapterFolder(options.adapter, folder, hub, storage);
    const record = await readRecord(path.join(folder.path, RECORD_FILE));
    const prompts = await readPrompts(folder.root);
    const tokenizer = await loadTokenizer(folder);
    const engine = await (options.engine ?? loadEngine)();
    const pools = pooling ?? adapter?.record?.pooling ?? folder.pooling;
    const native = await engine.open({
      weightsPath: folder.weightsPath,
      shape: folder.shape,
      pooling: pools,
      device,
      threads,
      ...(storage && { storage }),
    });
    try {
      const loaded = new LoadedAdapters();
      if (adapter !== undefined) {
        const id = loaded.newId(DEFAULT_ADAPTER);
        await native.loadAdapter(adapter.weightsPath, adapter.spec, id);
        loaded.set(DEFAULT_ADAPTER, { id, folder: adapter });
      }
      const access = { settings: hub.settings };
      const { batching } = options;
      return new Encoder(
        folder,
        loaded,
        tokenizer,
        native,
        storage,
        record,
        prompts,
        pools,
        access,
        batching,
      );
    } catch (error) {
      await native.close();
      throw error;
    }
  }

  /** Numbers in one vector. */
  get dimension(): number {
    return this.model.shape.hiddenSize;
  }

  /** The adapter that came with the model, while it is there; its name is `default`. */
  get adapter(): AdapterFolder | undefined {
    return this.held.default;
  }

  /** Those that are loaded, in the order in which their names came. */
  get adapters(): EncoderAdapter[] {
    return [...this.held.entries()].map(([name, { folder, unmerged }]) => ({
      name,
      path: folder.path,
      ...this.held.defaultsOf(folder),
      merged: unmerged !== undefined,
    }));
  }

  /** What texts get as prefix and as greatest length unless a call or its adapter says otherwise. */
  get defaults(): TextDefaults {
    return this.held.defaultsOf(this.adapter);
  }

  /**
   * Loads an adapter beside those that are there: it costs its own weights, and no second copy of the base. One that has the name already is
   * replaced in one go, without a pause: a call sees either the old one or the new one, whole. Where loading fails the old one stays.
   * @param folder Of an adapter that this package or PEFT wrote, or its name on the Hub.
   * @returns What is worth a warning, such as settings in adapter_config.json that are not known.
   * @throws USAGE, FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, ADAPTER_MISMATCH (another base, or another pooling),
   * ADAPTER_UNSUPPORTED, ENCODER_CLOSED, HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED.
   */
  addAdapter(name: string, folder: string): Promise<string[]> {
    return this.held.add(name, folder);
  }

  /**
   * Frees an adapter, merged or not, once the calls that were made before have ended; later ones no longer find it.
   * @throws USAGE where none has the name.
   */
  removeAdapter(name: string): Promise<void> {
    return this.held.remove(name);
  }

  /**
   * Merges an adapter into copies of the matrices that it changes, W + scale * B A, summed in double precision and rounded once: its
   * texts are then encoded as fast as those of the base. Texts of the base and of all other adapters keep their vectors to the bit.
   * The vectors of a probe are held against those before; above the tolerance the adapter stays unmerged. Calls that
   * are made once the promise has resolved are merged, earlier ones not, each call whole.
   * @throws MERGE_DRIFT; USAGE for a name that no adapter has, or one that is merged; DATA_EMPTY, NOT_FINITE, ENCODER_CLOSED, BUSY,
   * ABORTED, OUT_OF_MEMORY.
   */
  mergeAdapter(name: string, options: MergeAdapterOptions = {}): Promise<MergeAdapterResult> {
    return this.held.merge(name, options);
  }

  /**
   * Takes an adapter out of the base again: its vectors are, to the bit, those that it had before it was merged. Resolves once the memory
   * of the merged weights is given back, when the calls that were made before have ended.
   * @throws USAGE where none has the name, or it is not merged; ENCODER_CLOSED.
   */
  unmergeAdapter(name: string): Promise<void> {
    return this.held.unmerge(name);
  }

  /** Calls of `encode` that wait or run, and their texts without a vector so far. */
  get pending(): PendingCalls {
    return this.queue.pending;
  }

  /** Device, threads and sizes. Waits for the batch that runs. */
  info(): Promise<EncoderInfo> {
    return this.queue.turn(async () => this.native.info());
  }

  /** Bytes that encoding takes at its peak, beside libtorch itself. Waits for the batch that runs. */
  memory(): Promise<MemoryPlan> {
    return this.queue.turn(async () => this.native.memory(encodingMicroBatch(this.native), false));
  }

  /**
   * One vector of `dimension` float32 a text, in the order of the texts. The vectors of a call lie in memory of its own.
   * @throws USAGE; BUSY when `batching.maxQueue` calls wait already; ABORTED; ENCODER_CLOSED; NOT_FINITE, OUT_OF_MEMORY.
   */
  async encode(texts: readonly string[], options: EncodeTextsOptions = {}): Promise<Float32Array[]> {
    requireTexts(texts);
    requireKnownOptions(options, ENCODE_OPTIONS, "encode");
    const settings = this.settingsOf(texts.length, options);
    const { normalize = true, signal } = options;
    return this.queue.encode({ texts, settings, normalize, signal });
  }

  /**
   * Cosine of each text of `a` with the one of `b` in the same place. `a` takes the prefix of the first question and
   * `b` that of the second, unless `prefix` is given for both. `adapters` has one entry a pair.
   * @throws As `encode`.
   */
  async similarity(
    a: readonly string[],
    b: readonly string[],
    options: SimilarityOptions = {},
  ): Promise<Float32Array> {
    requireTexts(a);
    requireTexts(b);
    requireKnownOptions(options, SIMILARITY_OPTIONS, "similarity");
    if (a.length !== b.length) {
      throw new PeftTrainError(
        "USAGE",
        `similarity compares text by text: expected two arrays of one length, found ${a.length} and ${b.length}`,
      );
    }
    const first = this.settingsOf(a.length, options);
    const second = this.settingsOf(a.length, options, "question2Prefix");
    const vectors = await this.queue.encode({
      texts: a.concat(b),
      settings: (i) => (i < a.length ? first(i) : second(i - a.length)),
      normalize: true,
      signal: options.signal,
    });
    const cosines = new Float32Array(a.length);
    for (let i = 0; i < a.length; i++) {
      if (i > 0 && i % COSINES_A_TURN === 0) await setImmediate();
      cosines[i] = toldCosine(dot(vectors[i] as Float32Array, vectors[a.length + i] as Float32Array));
    }
    return cosines;
  }

  /**
   * Tokens that `encode` makes of each text with the same options, [CLS] and [SEP] counted and cut at the greatest length: what a
   * text costs.
   * @throws USAGE
   */
  async countTokens(texts: readonly string[], options: CountTokensOptions = {}): Promise<number[]> {
    requireTexts(texts);
    requireKnownOptions(options, COUNT_OPTIONS, "countTokens");
    return countTokens(this.tokenizer, texts, this.settingsOf(texts.length, options));
  }

  /**
   * Measures cosine similarity on the pairs or triplets of a file, with the prefixes that the adapter was trained with: how
   * well it tells labelled pairs apart, how it goes together with scores, or how often a positive is nearer than a negative.
   * @throws As for reading pairs: FILE_NOT_FOUND, DATA_COLUMN, DATA_LABEL, DATA_MALFORMED, DATA_EMPTY.
   */
  evaluate(file: string, options?: EvaluateLabelsOptions): Promise<LabelMetrics>;
  evaluate(file: string, options: EvaluateFileOptions): Promise<EvalMetrics>;
  evaluate(file: string, options: EvaluateFileOptions = {}): Promise<EvalMetrics> {
    return this.held.whileMeasuring(async () => {
      requireKnownOptions(options, EVALUATE_OPTIONS, "evaluate");
      return measureExamples(file, this.measuring(options.adapter), options);
    });
  }

  /**
   * Measures how well documents are found by cosine similarity: a folder in BEIR's layout, or its three files. Queries get
   * the prefix of the first question, documents that of the second.
   * @throws As for reading pairs.
   */
  evaluateRetrieval(
    from: string | RetrievalFiles,
    options: RetrievalOptions = {},
  ): Promise<RetrievalMetrics> {
    return this.held.whileMeasuring(async () => {
      requireKnownOptions(options, RETRIEVAL_OPTIONS, "evaluateRetrieval");
      return measureRetrieval(from, this.measuring(options.adapter), options);
    });
  }

  /**
   * Frees the model, once all calls that were made before have ended; later ones are refused with ENCODER_CLOSED. May be called again.
   */
  close(): Promise<void> {
    collectedWhileOpen.unregister(this);
    return this.queue.close();
  }

  /** As `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What is done to each of `count` texts; adapters are those of this moment, whatever replaces them later. @throws USAGE */
  private settingsOf(
    count: number,
    options: EncodeTextsOptions,
    side: Side = "question1Prefix",
  ): (i: number) => TextSettings {
    const { adapters, adapter } = options;
    if (adapters !== undefined && adapter !== undefined) {
      throw new PeftTrainError(
        "USAGE",
        "adapter and adapters both say what texts are encoded with; give one of them",
      );
    }
    const maxLength = checkedOption("max_length", "maxLength", options.maxLength);
    const settings = (of: boolean | string | undefined): TextSettings => {
      const held = this.held.choose(of);
      const defaults = this.held.defaultsOf(this.held.readAs(held), side);
      const most = maxLength ?? defaults.maxLength;
      requireMaxLength(most, this.model);
      return { prefix: options.prefix ?? defaults.prefix, maxLength: most, adapter: held?.id ?? false };
    };
    if (adapters === undefined) {
      const all = settings(adapter);
      return () => all;
    }
    requireOneEach(adapters, count);
    const each = new Map([...new Set(adapters)].map((name) => [name, settings(name)]));
    const ofText = adapters.slice();
    return (i) => each.get(ofText[i] as string | false) as TextSettings;
  }

  /** What is measured, by an engine for work in many calls: each takes its turn. @throws USAGE */
  private measuring(adapter: boolean | string | undefined): Measured {
    const held = this.held.choose(adapter);
    const folder = this.held.readAs(held);
    const engine: Measured["engine"] = {
      info: () => this.engineInfo,
      encode: (batch, options) => this.queue.turn(() => this.native.encode(batch, options)),
    };
    return {
      model: this.model,
      tokenizer: this.tokenizer,
      engine,
      prefixes: this.held.prefixesOf(folder),
      maxLength: this.held.defaultsOf(folder).maxLength,
      adapter: held?.id ?? false,
    };
  }
}

/** A lone string would be taken for a list of letters; what is in the list is looked at when its turn comes. @throws USAGE */
function requireTexts(texts: unknown): void {
  if (Array.isArray(texts)) return;
  throw new PeftTrainError("USAGE", `texts: expected an array of strings, found ${typeof texts}`);
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
