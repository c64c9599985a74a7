import { copyFile, mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { writeDurably } from "../adapter/durable.js";
import { openAdapterFolder } from "../adapter/folder.js";
import type { StoredAdapter } from "../adapter/stored-adapter.js";
import { AtomicFolder } from "../data/atomic-folder.js";
import { outputError } from "../data/file-error.js";
import type { LoadOptions } from "../encoder-options.js";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { readMergeable } from "../merge/mergeable.js";
import { mergeTensors } from "../merge/merged-weights.js";
import { plainConfig, writeModelFolder } from "../merge/model-folder.js";
import { TOKENIZER_FILES } from "../model/description.js";
import { sha256 } from "../model/fingerprint.js";
import { type ModelFolder, openModelFolder } from "../model/folder.js";
import { readJsonObject } from "../model/json-file.js";
import { ModelWeights } from "../model/model-weights.js";
import { type FloatType, writePieces } from "../model/tensor-writer.js";
import type { Pooling } from "../native/types.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { writeSentenceModules } from "../train/output/sentence-modules.js";
import { VERSION } from "../version.js";
import { bertGraph, OPSET } from "./bert-onnx.js";

export const EXPORT_FORMATS = ["transformers", "sentence-transformers", "onnx"] as const;
/** Whose layout a model is written in. */
export type ExportFormat = (typeof EXPORT_FORMATS)[number];
export const EXPORT_TYPES: readonly FloatType[] = ["float32", "float16", "bfloat16"];

/** What is exported, and how. */
export interface ExportOptions {
  /** Folder of an adapter that goes into the weights. */
  adapter?: string | undefined;
  /** How weights are held; ONNX: float32. Default: float32. */
  dtype?: FloatType | undefined;
  /** Default: what the adapter was trained with, or what the model's folder says. */
  pooling?: Pooling | undefined;
  /** Scale vectors to length 1. Default: true. */
  normalize?: boolean | undefined;
  /** ONNX: give sentence_embedding beside last_hidden_state. Default: false. */
  sentenceEmbedding?: boolean | undefined;
  /** sentence-transformers: prompts of queries and documents. Default: the adapter's, or what the model's folder says. */
  queryPrefix?: string | undefined;
  /** sentence-transformers: likewise of documents. */
  documentPrefix?: string | undefined;
  /** sentence-transformers: tokens of a text. Default: likewise, or all positions. */
  maxLength?: number | undefined;
  /** Where the engine comes from, which only adapters of PiSSA and OLoRA as PEFT saves them need. */
  engine?: LoadOptions["engine"];
  /** Bytes of a model or adapter of the Hub that are here, and in all. */
  onDownload?: HubAccess["onProgress"];
  /** What is worth a word, such as a Hub that does not answer while the cache does. */
  onNote?: HubAccess["onNote"];
  /** Ends the work with ABORTED; nothing is written then. */
  signal?: AbortSignal | undefined;
}

const EXPORT_OPTIONS: OptionNames<ExportOptions> = {
  adapter: true,
  dtype: true,
  pooling: true,
  normalize: "boolean",
  sentenceEmbedding: "boolean",
  queryPrefix: "string",
  documentPrefix: "string",
  maxLength: true,
  engine: "function",
  onDownload: "function",
  onNote: "function",
  signal: "AbortSignal",
};

/** What an export has written. */
export interface ExportResult {
  /** Absolute. */
  output: string;
  /** As it was asked for. */
  format: ExportFormat;
  /** How the weights are held. */
  dtype: FloatType;
  /** Modules that the adapter changed. */
  modules: number;
  /** Tensors of the base that are the adapter's own now, as of modules_to_save and bias. */
  parameters: number;
  /** File of the weights, below `output`, and its size. */
  weights: string;
  /** Bytes of that file. */
  weightsBytes: number;
  /** What is worth a word, such as settings in adapter_config.json that are not known. */
  warnings: string[];
}

const ONNX_FILE = path.join("onnx", "model.onnx");
/** Length of a message of protocol buffers, which an ONNX model is. */
const LARGEST_ONNX = 2 ** 31 - 1;

/**
 * Writes a model for other programs, with the adapter in its weights: as a folder of transformers, of sentence-transformers, or
 * as ONNX in the layout of transformers.js. Quantised weights become plain numbers.
 * @param output A folder that is not there, or empty; it appears whole or not at all.
 * @throws USAGE, MODEL_UNSUPPORTED (an ONNX file of more than 2 GiB), OUTPUT_EXISTS, OUTPUT_UNWRITABLE, ABORTED, and as for
 * loading model and adapter.
 */
export async function exportModel(
  model: string,
  output: string,
  format: ExportFormat,
  options: ExportOptions = {},
): Promise<ExportResult> {
  const dtype = options.dtype ?? "float32";
  requireOptions(format, dtype, options);
  const access = { signal: options.signal, onProgress: options.onDownload, onNote: options.onNote };
  const source = await openModelFolder(model, access);
  const { adapter: name } = options;
  const opened = name === undefined ? undefined : await openAdapterFolder(name, source, access);
  const adapter = opened && (await readMergeable(opened, source, options));
  await using folder = await AtomicFolder.create(output);
  const job = { source, adapter, dtype, options, draft: folder.draft };
  let weights = "model.safetensors";
  if (format === "onnx") {
    weights = ONNX_FILE;
    await writeOnnx(job);
  } else {
    await writeModelFolder(folder.draft, source, adapter, dtype, "flat");
    if (format === "sentence-transformers") await writeSentences(job);
  }
  if (options.signal?.aborted) throw new PeftTrainError("ABORTED", `stopped; ${output} was not written`);
  const { bytes } = await sha256(path.join(folder.draft, weights));
  await folder.commit();
  const modules = adapter?.modules.size ?? 0;
  const parameters = adapter?.own.size ?? 0;
  const warnings = opened?.warnings ?? [];
  return { output: folder.path, format, dtype, modules, parameters, weights, weightsBytes: bytes, warnings };
}

interface Job {
  source: ModelFolder;
  adapter: StoredAdapter | undefined;
  dtype: FloatType;
  options: ExportOptions;
  draft: string;
}

async function writeSentences({ source, adapter, options, draft }: Job): Promise<void> {
  const record = adapter?.record;
  const said = options.queryPrefix !== undefined || options.documentPrefix !== undefined;
  const query = options.queryPrefix ?? record?.question1Prefix ?? "";
  await writeSentenceModules(draft, {
    pooling: options.pooling ?? record?.pooling ?? source.pooling,
    dimension: source.shape.hiddenSize,
    normalize: options.normalize ?? true,
    query,
    document: options.documentPrefix ?? record?.question2Prefix ?? (said ? query : ""),
    maxLength: options.maxLength ?? record?.maxLength ?? source.sequenceLength ?? source.shape.maxPositions,
  });
  const prompts = path.join(source.root, "config_sentence_transformers.json");
  if (said || record !== undefined || (await readJsonObject(prompts)) === undefined) return;
  await copy(prompts, path.join(draft, "config_sentence_transformers.json"));
}

async function writeOnnx({ source, adapter, options, draft }: Job): Promise<void> {
  const names = await readdir(source.path);
  for (const name of TOKENIZER_FILES.filter((file) => names.includes(file))) {
    await copy(path.join(source.path, name), path.join(draft, name));
  }
  await writeDurably(path.join(draft, "config.json"), await plainConfig(source, "float32"));
  await using weights = await ModelWeights.open(source.weightsPath);
  const merge = mergeTensors(weights, adapter, "float32");
  const reader = {
    shape: (name: string) => weights.shape(weights.prefix + name),
    read: async (name: string) => merge(weights.prefix + name, await weights.floats(weights.prefix + name)),
  };
  const pooling = options.pooling ?? adapter?.record?.pooling ?? source.pooling;
  const sentence = options.sentenceEmbedding ? { pooling, normalize: options.normalize ?? true } : undefined;
  const graph = bertGraph(source.shape, reader, sentence);
  const pieces = graph.pieces("bert", OPSET, { name: "peft-train", version: VERSION });
  const total = pieces.reduce((sum, piece) => sum + piece.bytes, 0);
  if (total > LARGEST_ONNX) {
    throw new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `${source.name} would be ${total} bytes as one ONNX file, which can hold ${LARGEST_ONNX}`,
      { hint: "Export it for transformers, and convert that with optimum, which writes external data." },
    );
  }
  await mkdir(path.join(draft, "onnx")).catch((cause) => {
    throw outputError(draft, cause);
  });
  await writePieces(path.join(draft, ONNX_FILE), pieces);
}

async function copy(from: string, to: string): Promise<void> {
  await copyFile(from, to).catch((cause) => {
    throw outputError(to, cause);
  });
}

/** @throws USAGE for options that say nothing to the format. */
function requireOptions(format: ExportFormat, dtype: FloatType, options: ExportOptions): void {
  requireKnownOptions(options, EXPORT_OPTIONS, "exportModel");
  if (!EXPORT_FORMATS.includes(format)) {
    throw new PeftTrainError(
      "USAGE",
      `format: expected one of ${EXPORT_FORMATS.join(", ")}, found ${JSON.stringify(format)}`,
    );
  }
  if (!EXPORT_TYPES.includes(dtype)) {
    throw new PeftTrainError(
      "USAGE",
      `dtype: expected one of ${EXPORT_TYPES.join(", ")}, found ${JSON.stringify(dtype)}`,
    );
  }
  if (format === "onnx" && dtype !== "float32") {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `dtype ${dtype}: ONNX models are written in float32 in this version`,
      {
        hint: "Leave it out; onnxruntime's own tools make float16 and int8 of it.",
      },
    );
  }
  const sentences = format === "sentence-transformers";
  const vectors = sentences || (format === "onnx" && options.sentenceEmbedding === true);
  for (const [name, value, fits] of [
    ["sentence_embedding", options.sentenceEmbedding, format === "onnx"],
    ["pooling", options.pooling, vectors],
    ["normalize", options.normalize, vectors],
    ["query_prefix", options.queryPrefix, sentences],
    ["document_prefix", options.documentPrefix, sentences],
    ["max_length", options.maxLength, sentences],
  ] as const) {
    if (value === undefined || fits) continue;
    const without = format === "onnx" ? " without sentence_embedding" : "";
    throw new PeftTrainError("USAGE", `${name} says nothing to the format ${format}${without}`, {
      hint: "Leave it out.",
    });
  }
}
