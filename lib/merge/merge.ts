import path from "node:path";
import { writeDurably } from "../adapter/durable.js";
import { openAdapterFolder } from "../adapter/folder.js";
import { requireNear, requireProbe, requireTolerance } from "../adapter/merge-drift.js";
import type { StoredAdapter } from "../adapter/stored-adapter.js";
import { AtomicFolder } from "../data/atomic-folder.js";
import { probeTexts } from "../data/probe-texts.js";
import { Encoder } from "../encoder.js";
import type { LoadOptions } from "../encoder-options.js";
import { PeftTrainError } from "../errors.js";
import { type VectorDrift, vectorDrift } from "../metrics/vector-drift.js";
import { sha256 } from "../model/fingerprint.js";
import { type ModelFolder, openModelFolder } from "../model/folder.js";
import { readSentenceModules } from "../model/pooling.js";
import type { FloatType } from "../model/tensor-writer.js";
import type { QuantizeReport } from "../native/types.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { quantizeFolder } from "../quantize.js";
import { snakeCaseKeys } from "../train/json-line.js";
import { quantizeRequest } from "../train/options/quantize-settings.js";
import { writeSentenceModules } from "../train/output/sentence-modules.js";
import { VERSION } from "../version.js";
import { readMergeable } from "./mergeable.js";
import { writeModelFolder } from "./model-folder.js";
import { type Probe, probeVectors } from "./probe.js";

/** How the merged weights are stored. */
export type MergeType = FloatType | "nf4" | "fp4" | "int8";
export const MERGE_TYPES: readonly MergeType[] = ["float32", "float16", "bfloat16", "nf4", "fp4", "int8"];

/** What a merge says of itself beside the weights. */
export const MERGED_FILE = "peft_train_merged.json";

/** What is merged, how it is stored, and how much it may drift. */
export interface MergeOptions {
  /** How the merged weights are held. Default: float32, whatever the base. */
  dtype?: MergeType | undefined;
  /**
   * Largest 1 - cosine, over the probe, between the merged model's vectors and those of the base with its adapter.
   * Default: 0.001, and none for quantised weights.
   */
  tolerance?: number | undefined;
  /** Texts to hold the two against each other on. Default: 256 questions that come with the package. */
  probe?: readonly string[] | undefined;
  /** Threads of the matrix products. */
  threads?: number | undefined;
  /** Where the engine comes from; for tests, and for programs that set libtorch up first. */
  engine?: LoadOptions["engine"];
  /** Bytes of a model or adapter of the Hub that are here, and in all. */
  onDownload?: LoadOptions["onDownload"];
  /** What is worth a word, such as a Hub that does not answer while the cache does. */
  onNote?: LoadOptions["onNote"];
  /** What is being done now. */
  onPhase?: ((phase: "merging" | "quantizing" | "measuring") => void) | undefined;
  /** Ends the work with ABORTED; nothing is written then. */
  signal?: AbortSignal | undefined;
}

const MERGE_OPTIONS: OptionNames<MergeOptions> = {
  dtype: true,
  tolerance: true,
  probe: true,
  threads: true,
  engine: "function",
  onDownload: "function",
  onNote: "function",
  onPhase: "function",
  signal: "AbortSignal",
};

/** What a merge has written, and how far the vectors of the probe texts moved. */
export interface MergeResult {
  /** Absolute. */
  output: string;
  /** How the merged weights are held. */
  dtype: MergeType;
  /** Modules that the adapter changed. */
  modules: number;
  /** Tensors of the base that are the adapter's own now, as of modules_to_save and bias. */
  parameters: number;
  /** What the adapter was trained to have before a text, which whoever encodes with the merged model has to put there. */
  prefix: string;
  /** model.safetensors before and after. */
  sourceFileBytes: number;
  /** Likewise after. */
  fileBytes: number;
  /** 1 - cosine between vectors of the merged model and of the base with its adapter. */
  drift: VectorDrift;
  /** Of quantised weights. */
  quantized: QuantizeReport | undefined;
  /** What is worth a word, such as settings in adapter_config.json that are not known. */
  warnings: string[];
}

/**
 * Writes a model folder whose weights hold what an adapter adds: W + scale * B A, and its own parameters in place of the base's. A quantised
 * base is brought to float32 first.
 * @param output A folder that is not there, or empty; it appears whole or not at all.
 * @throws MERGE_DRIFT above the tolerance, USAGE, ADAPTER_MISMATCH, NOT_FINITE, OUTPUT_EXISTS, OUTPUT_UNWRITABLE, ABORTED, and as
 * for loading model and adapter.
 */
export async function mergeAdapter(
  model: string,
  adapter: string,
  output: string,
  options: MergeOptions = {},
): Promise<MergeResult> {
  requireKnownOptions(options, MERGE_OPTIONS, "mergeAdapter");
  const dtype = options.dtype ?? "float32";
  if (!MERGE_TYPES.includes(dtype)) {
    throw new PeftTrainError("USAGE", `dtype: expected one of ${MERGE_TYPES.join(", ")}, found ${dtype}`);
  }
  requireTolerance(options.tolerance);
  const access = { signal: options.signal, onProgress: options.onDownload, onNote: options.onNote };
  const source = await openModelFolder(model, access);
  const opened = await openAdapterFolder(adapter, source, access);
  const stored = await readMergeable(opened, source, options);
  const texts = options.probe ?? (await probeTexts());
  requireProbe(texts);
  await using folder = await AtomicFolder.create(output);
  const merge = new Merge({ model, adapter, output, dtype, source, stored, texts, options });
  return { ...(await merge.into(folder)), warnings: opened.warnings };
}

interface Job {
  model: string;
  adapter: string;
  output: string;
  dtype: MergeType;
  source: ModelFolder;
  stored: StoredAdapter;
  texts: readonly string[];
  options: MergeOptions;
}

class Merge {
  constructor(private readonly job: Job) {}

  async into(folder: AtomicFolder): Promise<Omit<MergeResult, "warnings">> {
    const { dtype, source, stored, options } = this.job;
    const wanted = await this.vectors(this.job.model, this.job.adapter);
    options.onPhase?.("merging");
    const float = dtype === "float16" || dtype === "bfloat16" ? dtype : "float32";
    const target = await writeModelFolder(folder.draft, source, stored, float);
    await this.keepPooling(folder.draft);
    this.stopped();
    const shared = {
      output: folder.path,
      dtype,
      modules: stored.modules.size,
      parameters: stored.own.size,
      prefix: stored.record?.question1Prefix ?? "",
      sourceFileBytes: (await sha256(source.weightsPath)).bytes,
    };
    if (dtype === float) {
      const { bytes, hash } = await sha256(path.join(target, "model.safetensors"));
      const drift = await this.drift(folder.draft, wanted, hash, target);
      await folder.commit();
      return { ...shared, fileBytes: bytes, drift, quantized: undefined };
    }
    return { ...shared, ...(await this.quantize(folder.draft, wanted)) };
  }

  /** An adapter may have been trained with another pooling than its base's folder says: the merged folder says the adapter's. */
  private async keepPooling(draft: string): Promise<void> {
    const { source, stored } = this.job;
    const { record } = stored;
    if (record === undefined || record.pooling === source.pooling) return;
    const { normalize, transformerPath } = await readSentenceModules(source.root);
    await writeSentenceModules(draft, {
      pooling: record.pooling,
      dimension: source.shape.hiddenSize,
      normalize,
      query: record.question1Prefix,
      document: record.question2Prefix,
      maxLength: record.maxLength,
      transformerPath,
    });
  }

  /** The draft in float32 is left behind: what appears is its quantised copy. */
  private async quantize(
    draft: string,
    wanted: readonly Float32Array[],
  ): Promise<Pick<MergeResult, "fileBytes" | "drift" | "quantized">> {
    const { output, dtype, model, adapter, source, options } = this.job;
    options.onPhase?.("quantizing");
    const { blockSize, doubleQuant } = source.quantized?.format === dtype ? source.quantized : {};
    const settings = { type: dtype as "nf4" | "fp4" | "int8", blockSize, doubleQuant };
    let drift: VectorDrift | undefined;
    const { report, fileBytes } = await quantizeFolder(
      draft,
      output,
      quantizeRequest(dtype === "int8" ? dtype : settings),
      { engine: options.engine, signal: options.signal },
      {
        sourceName: `${model} with ${adapter}`,
        check: async (quantized, target) => {
          const { hash } = await sha256(path.join(target, "model.safetensors"));
          drift = await this.drift(quantized, wanted, hash, target);
        },
      },
    );
    return { quantized: report, fileBytes, drift: drift as VectorDrift };
  }

  /** Of the folder that is about to appear. @throws MERGE_DRIFT */
  private async drift(
    draft: string,
    wanted: readonly Float32Array[],
    weights: string,
    target: string,
  ): Promise<VectorDrift> {
    const { texts, model, adapter, dtype, output, stored, options } = this.job;
    const drift = vectorDrift(texts, wanted, await this.vectors(draft));
    requireNear(drift, dtype, options.tolerance, {
      adapter: `${model} with ${adapter}`,
      lastly: `${output} was not written`,
      hint: "Take a dtype of more bits, or allow more with --tolerance.",
    });
    const record = {
      format: 1,
      peft_train_version: VERSION,
      base_model: model,
      adapter,
      weights_sha256: weights,
      question1_prefix: stored.record?.question1Prefix ?? null,
      question2_prefix: stored.record?.question2Prefix ?? null,
      max_length: stored.record?.maxLength ?? null,
      dtype,
      drift: snakeCaseKeys(drift),
    };
    await writeDurably(path.join(target, MERGED_FILE), `${JSON.stringify(record, null, 2)}\n`);
    this.stopped();
    return drift;
  }

  private async vectors(model: string, adapter?: string): Promise<Float32Array[]> {
    const { stored, texts, options } = this.job;
    options.onPhase?.("measuring");
    const { record } = stored;
    await using encoder = await Encoder.load(model, {
      adapter,
      threads: options.threads,
      engine: options.engine,
      signal: options.signal,
    });
    const probe: Probe = {
      texts,
      prefix: record?.question1Prefix ?? "",
      maxLength: record?.maxLength ?? encoder.defaults.maxLength,
    };
    const vectors = await probeVectors(encoder, probe);
    this.stopped();
    return vectors;
  }

  private stopped(): void {
    if (this.job.options.signal?.aborted) {
      throw new PeftTrainError("ABORTED", `stopped; ${this.job.output} was not written`);
    }
  }
}
