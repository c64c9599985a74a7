import { readFile } from "node:fs/promises";
import path from "node:path";
import { writeDurably } from "./adapter/durable.js";
import { AtomicFolder } from "./data/atomic-folder.js";
import { fileError } from "./data/file-error.js";
import { PeftTrainError } from "./errors.js";
import { copyDescription } from "./model/description.js";
import { sha256 } from "./model/fingerprint.js";
import { type ModelFolder, openModelFolder } from "./model/folder.js";
import { formatQuantizedConfig } from "./model/quantization.js";
import { formatOrigin, ORIGIN_FILE } from "./model/quantized-from.js";
import { describeStorage, type StorageRequest, wholeStorage } from "./model/storage.js";
import { loadEngine } from "./native/load.js";
import type { NativeEngine, QuantizeReport, WeightStorage } from "./native/types.js";
import { type OptionNames, requireKnownOptions } from "./option-names.js";
import { snakeCaseKeys } from "./train/json-line.js";
import { type QuantizeSettings, quantizeRequest } from "./train/options/quantize-settings.js";

/** How a model is quantised, and who is told. */
export interface QuantizeModelOptions {
  /** Where the engine comes from; for tests, and for programs that set libtorch up first. */
  engine?: (() => NativeEngine | Promise<NativeEngine>) | undefined;
  /** Matrices quantised, and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Bytes of a model of the Hub that are here, and in all. */
  onDownload?: ((file: string, bytesDone: number, bytesTotal: number) => void) | undefined;
  /** Asked after every matrix and before the folder appears. */
  signal?: AbortSignal | undefined;
}

const QUANTIZE_OPTIONS: OptionNames<QuantizeModelOptions> = {
  engine: "function",
  onProgress: "function",
  onDownload: "function",
  signal: "AbortSignal",
};

/** What a merge asks of it. */
export interface QuantizeInside {
  /** What the source is called, where the folder is not the user's. */
  sourceName?: string;
  /** Called before the folder appears, with its draft and the part of it that has the weights; may throw. */
  check?: (draft: string, target: string) => Promise<void>;
}

/** What `quantize` has written. */
export interface QuantizeResult {
  /** Absolute. */
  output: string;
  /** How the matrices are held now. */
  storage: WeightStorage;
  /** Of the quantised matrices; sizes in bytes. */
  report: QuantizeReport;
  /** model.safetensors before and after. */
  sourceFileBytes: number;
  /** Likewise after, in bytes. */
  fileBytes: number;
}

/**
 * Writes a quantised copy of a model folder, as transformers and bitsandbytes write it: this package and Python read it.
 * It appears whole or not at all.
 * @param output A folder that is not there, or empty.
 * @throws USAGE, ALREADY_QUANTIZED, OUTPUT_EXISTS, OUTPUT_UNWRITABLE, NOT_FINITE (NaN or infinity among the weights),
 * ABORTED, and as for loading a model.
 */
export async function quantize(
  model: string,
  output: string,
  settings: QuantizeSettings["type"] | QuantizeSettings,
  options: QuantizeModelOptions = {},
): Promise<QuantizeResult> {
  if (settings === undefined || settings === null) {
    throw new PeftTrainError("USAGE", "quantize: expected nf4, fp4, int8, or an object with a type");
  }
  requireKnownOptions(options, QUANTIZE_OPTIONS, "quantize");
  return quantizeFolder(model, output, quantizeRequest(settings), options);
}

/** As `quantize`, for options of the command line. */
export async function quantizeFolder(
  model: string,
  output: string,
  request: StorageRequest,
  options: QuantizeModelOptions,
  inside: QuantizeInside = {},
): Promise<QuantizeResult> {
  for (const [name, value] of Object.entries({ model, output })) {
    if (typeof value === "string" && value !== "") continue;
    throw new PeftTrainError(
      "USAGE",
      `${name}: expected the path of a folder, found ${JSON.stringify(value) ?? value}`,
    );
  }
  const source = await openModelFolder(model, {
    signal: options.signal,
    onProgress: options.onDownload,
  });
  if (source.quantized !== undefined) {
    throw new PeftTrainError(
      "ALREADY_QUANTIZED",
      `${model} is quantised already, as ${describeStorage(source.quantized)}`,
      { hint: "Give the folder of the model before quantisation." },
    );
  }
  const storage = wholeStorage(request, request.format ?? "4bit");
  await using folder = await AtomicFolder.create(output);
  const inner = path.relative(source.root, source.path);
  const target = path.join(folder.draft, inner);
  await copyDescription(source, folder.draft, target);
  const weights = path.join(target, "model.safetensors");
  const engine = await (options.engine ?? loadEngine)();
  const { weightsPath, shape } = source;
  let failure: { error: unknown } | undefined; // of the caller's onProgress
  const goOn = (done: number, total: number): boolean => {
    if (failure !== undefined) return false;
    try {
      options.onProgress?.(done, total);
    } catch (error) {
      failure = { error };
    }
    return failure === undefined && !options.signal?.aborted;
  };
  let report: QuantizeReport;
  try {
    report = await engine.quantize({ weightsPath, output: weights, shape, storage }, goOn);
  } catch (error) {
    throw options.signal?.aborted ? stopped(output) : (failure?.error ?? inPlace(error, folder));
  }
  if (failure !== undefined) throw failure.error;
  await writeConfig(source, storage, target);
  const [from, to] = [await sha256(weightsPath), await sha256(weights)];
  await writeDurably(
    path.join(target, ORIGIN_FILE),
    formatOrigin(
      { sourceModel: inside.sourceName ?? model, sourceWeights: from.hash, weights: to.hash },
      { held_as: snakeCaseKeys(storage), ...(snakeCaseKeys(report) as object) },
    ),
  );
  await inside.check?.(folder.draft, target);
  if (options.signal?.aborted) throw stopped(output);
  await folder.commit();
  return { output: folder.path, storage, report, sourceFileBytes: from.bytes, fileBytes: to.bytes };
}

/** An error that names the folder that was asked for, not where it is made. */
function inPlace(error: unknown, { draft, path: asked }: AtomicFolder): unknown {
  if (!(error instanceof PeftTrainError) || !error.message.includes(draft)) return error;
  return new PeftTrainError(error.code, error.message.replaceAll(draft, asked), {
    hint: "Free some space, or choose another place.",
    cause: error,
  });
}

function stopped(output: string): PeftTrainError {
  return new PeftTrainError("ABORTED", `stopped; ${output} was not written`);
}

async function writeConfig(model: ModelFolder, storage: WeightStorage, target: string): Promise<void> {
  const file = path.join(model.path, "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw fileError(file, cause);
  }
  const config = JSON.parse(text.replace(/^\uFEFF/, ""));
  await writeDurably(
    path.join(target, "config.json"),
    formatQuantizedConfig(config, storage, model.hasPooler),
  );
}
