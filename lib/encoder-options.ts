import type { AdapterOptions } from "./adapter/loaded.js";
import type { ExampleColumns } from "./data/example-layout.js";
import type { BatchingOptions } from "./encoding/batching.js";
import type { NativeEngine, Pooling } from "./native/types.js";
import type { OptionNames } from "./option-names.js";
import type { QuantizeSettings } from "./train/options/quantize-settings.js";

/** How an encoder is loaded. */
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
  /** How calls of `encode` that overlap share the encoder. */
  batching?: BatchingOptions | undefined;
  /** Where the engine comes from; for tests, and for programs that set libtorch up first. */
  engine?: (() => NativeEngine | Promise<NativeEngine>) | undefined;
}

export const LOAD_OPTIONS: OptionNames<LoadOptions> = {
  adapter: true,
  device: true,
  threads: true,
  pooling: true,
  quantize: true,
  dtype: true,
  onDownload: "function",
  onNote: "function",
  hubToken: true,
  signal: "AbortSignal",
  batching: true,
  engine: "function",
};

/** How texts are encoded. */
export interface EncodeTextsOptions extends AdapterOptions {
  /** Put before every text. Default: what the first question was trained with, by its adapter or the model itself, the prompt that sentence-transformers would take, or nothing. */
  prefix?: string | undefined;
  /** Tokens of a text, [CLS] and [SEP] counted. Default: as its adapter or the model was trained, as many as sentence-transformers takes, or 128. */
  maxLength?: number | undefined;
  /** L2-normalise, so that a dot product is a cosine. Default: true. */
  normalize?: boolean | undefined;
  /** Ends the call with ABORTED: at once while it waits, and after the batch in hand while it runs. */
  signal?: AbortSignal | undefined;
}

/** How texts are counted. */
export type CountTokensOptions = Pick<EncodeTextsOptions, "prefix" | "maxLength" | "adapter" | "adapters">;

/** How pairs of texts are compared. */
export type SimilarityOptions = Omit<EncodeTextsOptions, "normalize">;

export const COUNT_OPTIONS: OptionNames<CountTokensOptions> = {
  adapter: true,
  adapters: true,
  prefix: "string",
  maxLength: true,
};
export const SIMILARITY_OPTIONS: OptionNames<SimilarityOptions> = { ...COUNT_OPTIONS, signal: "AbortSignal" };
export const ENCODE_OPTIONS: OptionNames<EncodeTextsOptions> = {
  ...SIMILARITY_OPTIONS,
  normalize: "boolean",
};

/** How the examples of a file are measured. */
export interface EvaluateFileOptions {
  /**
   * Names of the columns; default: question1, question2, is_duplicate. With `negatives` the file is measured as triplets,
   * else with `score` as scored pairs.
   */
  columns?: Partial<ExampleColumns> | undefined;
  /** Default: as the adapter or the model was trained, the prompt of sentence-transformers, or `query: `. */
  question1Prefix?: string | undefined;
  /** Likewise before the second text of an example, and its negatives. */
  question2Prefix?: string | undefined;
  /** Tokens of a text, [CLS] and [SEP] counted. Default: as the adapter or the model was trained, as many as sentence-transformers takes, or 128. */
  maxLength?: number | undefined;
  /** Examples encoded at a time. Default: 128. */
  batchSize?: number | undefined;
  /** The name of an adapter; false measures the base model. Default: the adapter that came with the model, if any. */
  adapter?: boolean | string | undefined;
  /** Bytes of the file read, and in all (0 where that cannot be known). */
  onRead?: ((bytesRead: number, bytesTotal: number) => void) | undefined;
  /** Told how much is done, and of how much. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Ends the evaluation with ABORTED, after the batch in hand. */
  signal?: AbortSignal | undefined;
}

export const EVALUATE_OPTIONS: OptionNames<EvaluateFileOptions> = {
  columns: true,
  question1Prefix: "string",
  question2Prefix: "string",
  maxLength: true,
  batchSize: true,
  adapter: true,
  onRead: "function",
  onProgress: "function",
  signal: "AbortSignal",
};

/** How retrieval is measured. */
export interface RetrievalOptions
  extends Pick<EvaluateFileOptions, "maxLength" | "batchSize" | "adapter" | "onProgress" | "signal"> {
  /** Default: as the adapter or the model was trained, the prompt of sentence-transformers, or `query: `. E5 models want `passage: ` before documents. */
  queryPrefix?: string | undefined;
  /** Likewise before documents, by what the second question was trained with. */
  corpusPrefix?: string | undefined;
  /** Default: 1, 3, 5 and 10. */
  ks?: readonly number[] | undefined;
  /** Pass over the document that has the id of the query, as BEIR does. Default: false. */
  ignoreIdenticalIds?: boolean | undefined;
  /** Bytes of the files read, and in all (0 where that cannot be known). */
  onRead?: ((file: string, bytesRead: number, bytesTotal: number) => void) | undefined;
  /** What does not fit in the three files, and changes what is measured. */
  onNote?: ((message: string) => void) | undefined;
}

export const RETRIEVAL_OPTIONS: OptionNames<RetrievalOptions> = {
  maxLength: true,
  batchSize: true,
  adapter: true,
  onProgress: "function",
  signal: "AbortSignal",
  queryPrefix: "string",
  corpusPrefix: "string",
  ks: true,
  ignoreIdenticalIds: "boolean",
  onRead: "function",
  onNote: "function",
};

/** Of labelled pairs. */
export interface EvaluateLabelsOptions extends EvaluateFileOptions {
  columns?: Pick<Partial<ExampleColumns>, "question1" | "question2" | "label"> | undefined;
}
