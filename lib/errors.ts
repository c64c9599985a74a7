/** Every error this package throws on purpose carries one of these codes; `docs/errors.md` explains each. */
export const ERROR_CODES = [
  "USAGE", // an option or argument is unknown, missing or out of range
  "FILE_NOT_FOUND",
  "FILE_UNREADABLE",
  "DATA_EMPTY",
  "DATA_COLUMN", // a column that was asked for is not in the file
  "DATA_LABEL", // a label that is not 0 or 1, a score that is no number
  "DATA_MALFORMED", // a ragged row, bytes that are not UTF-8, broken JSON, gzip or Parquet
  "MODEL_UNSUPPORTED", // a readable model of a kind the engine does not run
  "MODEL_CORRUPT", // config, tokenizer or weights that contradict themselves or each other
  "QUANT_STATE", // a quantisation state that disagrees with its tensors or with itself
  "ALREADY_QUANTIZED", // a quantised model that was to be quantised again, or in another way
  "ADAPTER_MISMATCH", // an adapter for another base, or with missing or unexpected keys
  "ADAPTER_UNSUPPORTED",
  "MERGE_DRIFT", // merged weights whose vectors are further from the adapter's than was allowed
  "CHECKPOINT_MISMATCH", // a checkpoint of other data, another base model or other settings
  "CHECKPOINT_CORRUPT", // a checkpoint whose files are damaged, or none that is whole
  "OUTPUT_EXISTS",
  "OUTPUT_UNWRITABLE",
  "LIBTORCH_MISSING",
  "LIBTORCH_INCOMPATIBLE",
  "ADDON_MISSING", // the compiled addon is not there or does not load
  "DEVICE_UNAVAILABLE",
  "BUSY", // a full queue
  "ENCODER_BUSY",
  "ENCODER_CLOSED",
  "OUT_OF_MEMORY",
  "NOT_FINITE", // NaN or infinity in the loss, a gradient or a weight
  "DOWNLOAD_FAILED",
  "HUB_NOT_FOUND", // a repository, revision or file that the Hub (or its cache, offline) has not
  "HUB_ACCESS", // the Hub asks for a token, refuses it, or wants terms accepted
  "UPLOAD_FAILED",
  "ABORTED",
  "NOT_YET_AVAILABLE", // an option that is understood but has no implementation in this version
  "INTERNAL",
] as const;

/** What went wrong, in one word: one of `ERROR_CODES`. */
export type ErrorCode = (typeof ERROR_CODES)[number];

export interface PeftTrainErrorOptions {
  /** What to do next, as one sentence or a command. */
  hint?: string;
  /** What was thrown below it. */
  cause?: unknown;
}

/** The one error class of the package: `message` says what was expected and what was found, `hint` what to do next. */
export class PeftTrainError extends Error {
  /** What went wrong, for programs. */
  readonly code: ErrorCode;
  /** What to do next, as one sentence or a command; undefined where the message says all. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: PeftTrainErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "PeftTrainError";
    this.code = code;
    this.hint = options.hint;
  }
}
