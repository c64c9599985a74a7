import { beirFiles } from "../data/beir-folder.js";
import type { ExampleColumns } from "../data/example-layout.js";
import { type ExampleSource, loadExamples } from "../data/examples.js";
import {
  loadRetrievalSet,
  type RetrievalFiles,
  type RetrievalSource,
  retrievalWarnings,
} from "../data/retrieval-set.js";
import type { Tokenizer } from "../data/tokenizer.js";
import type { EvaluateFileOptions, RetrievalOptions } from "../encoder-options.js";
import { PeftTrainError } from "../errors.js";
import type { ModelFolder } from "../model/folder.js";
import type { ModelPrompts } from "../model/prompts.js";
import { requireMaxLength } from "../model-tokenizer.js";
import type { NativeEncoder } from "../native/types.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { type EvalMetrics, evaluateExamples, requireMeasurable } from "../train/evaluation/evaluate.js";
import {
  checkedKs,
  DEFAULT_KS,
  evaluateRetrieval,
  type RetrievalMetrics,
} from "../train/evaluation/evaluate-retrieval.js";
import { TRAIN_OPTIONS } from "../train/options/option-table.js";
import { checkedOption } from "./checked-option.js";

/** What training puts before both questions unless it is told otherwise, so that both measure the same. */
const DEFAULT_PREFIX: string = TRAIN_OPTIONS.prefix.default;

const EXAMPLE_COLUMNS: OptionNames<ExampleColumns> = {
  question1: "string",
  question2: "string",
  label: "string",
  score: true,
  negatives: true,
};

/** An encoder with one of its adapters, as files are measured with it. */
export interface Measured {
  model: ModelFolder;
  tokenizer: Tokenizer;
  engine: Pick<NativeEncoder, "info" | "encode">;
  /** What goes before texts, as far as the adapter or the model says. */
  prefixes: ModelPrompts | undefined;
  /** Tokens of a text unless a call says otherwise. */
  maxLength: number;
  /** The engine's name of the adapter; false: the base model. */
  adapter: string | false;
}

/** As `Encoder.evaluate`. */
export async function measureExamples(
  file: string,
  measured: Measured,
  options: EvaluateFileOptions,
): Promise<EvalMetrics> {
  const { adapter } = measured;
  const { maxLength, batchSize, prefixes, stopped } = settled(measured, options);
  const { columns = {} } = options;
  requireKnownOptions(columns, EXAMPLE_COLUMNS, "columns");
  const kind = columns.negatives?.length ? "negatives" : columns.score ? "scores" : "labels";
  const source: ExampleSource = {
    path: file,
    columns,
    kinds: [kind],
    question1Prefix: options.question1Prefix ?? prefixes.question1Prefix,
    question2Prefix: options.question2Prefix ?? prefixes.question2Prefix,
    maxLength,
  };
  const dataset = await loadExamples(source, measured.tokenizer, (bytesRead, bytesTotal) => {
    if (stopped()) throw evaluationStopped(file);
    options.onRead?.(bytesRead, bytesTotal);
  });
  requireMeasurable(dataset, columns.label);
  const metrics = await evaluateExamples(measured.engine, dataset, {
    batchSize,
    adapter,
    onProgress: options.onProgress,
    stopped,
  });
  if (metrics === undefined) throw evaluationStopped(file);
  return metrics;
}

/** As `Encoder.evaluateRetrieval`. */
export async function measureRetrieval(
  from: string | RetrievalFiles,
  measured: Measured,
  options: RetrievalOptions,
): Promise<RetrievalMetrics> {
  const { adapter } = measured;
  const { maxLength, batchSize, prefixes, stopped } = settled(measured, options);
  const ks = checkedKs(options.ks) ?? DEFAULT_KS;
  const files = typeof from === "string" ? await beirFiles(from) : from;
  const source: RetrievalSource = {
    ...files,
    queryPrefix: options.queryPrefix ?? prefixes.question1Prefix,
    corpusPrefix: options.corpusPrefix ?? prefixes.question2Prefix,
    maxLength,
  };
  const set = await loadRetrievalSet(source, measured.tokenizer, (file, bytesRead, bytesTotal) => {
    if (stopped()) throw evaluationStopped(file);
    options.onRead?.(file, bytesRead, bytesTotal);
  });
  for (const message of retrievalWarnings(set, files)) options.onNote?.(message);
  const metrics = await evaluateRetrieval(measured.engine, set, {
    batchSize,
    adapter,
    ks,
    ignoreIdenticalIds: options.ignoreIdenticalIds ?? false,
    onProgress: options.onProgress,
    stopped,
  });
  if (metrics === undefined) throw evaluationStopped(files.corpus);
  return metrics;
}

/** What either way of measuring asks of its options, and has where they say nothing. @throws USAGE */
function settled(
  { model, prefixes, maxLength: trained }: Measured,
  options: Pick<EvaluateFileOptions, "maxLength" | "batchSize" | "signal">,
) {
  const maxLength = checkedOption("max_length", "maxLength", options.maxLength) ?? trained;
  const batchSize = checkedOption("per_device_eval_batch_size", "batchSize", options.batchSize) ?? 128;
  requireMaxLength(maxLength, model);
  return {
    maxLength,
    batchSize,
    prefixes: prefixes ?? { question1Prefix: DEFAULT_PREFIX, question2Prefix: DEFAULT_PREFIX },
    stopped: (): boolean => options.signal?.aborted ?? false,
  };
}

function evaluationStopped(file: string): PeftTrainError {
  return new PeftTrainError("ABORTED", `evaluation of ${file} was stopped`);
}
