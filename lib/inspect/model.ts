import path from "node:path";
import { type ModelFolder, openModelFolder } from "../model/folder.js";
import { readJsonObject } from "../model/json-file.js";
import { readSentenceModules } from "../model/pooling.js";
import { encodingMaxLength } from "../model-tokenizer.js";
import type { ModelShape, Pooling, WeightFormat, WeightStorage } from "../native/types.js";
import { frozenBytes, heldAs } from "./frozen-bytes.js";
import { asProblem, type Problem } from "./inspect.js";

/** What config.json and its neighbours say, as far as they can be read. */
export interface ModelDescription {
  /** `model_type` of config.json. */
  modelType: string | null;
  /** Of config.json; empty where it names none. */
  architectures: string[];
  /** Sizes of the encoder; undefined where this package cannot load it. */
  shape: ModelShape | undefined;
  /** How token vectors become one, by the folder. */
  pooling: Pooling | undefined;
  /** Whether sentence-transformers scales its vectors to length 1. */
  normalize: boolean | undefined;
  /** Of config_sentence_transformers.json. */
  prompts: Record<string, unknown>;
  /** Whether the weights hold pooler.dense. */
  pooler: boolean | undefined;
  /** How the file holds its matrices, where they are quantised. */
  quantized: WeightStorage | undefined;
  /** Bytes that its frozen weights take once loaded, in the ways that they can be held. */
  memory: {
    /** How a number is held. */
    format: WeightFormat;
    /** Of matrices, embeddings, biases and LayerNorms together. */
    bytes: number;
  }[];
  /** Tokens of a text that is encoded, where nobody says otherwise. */
  defaultMaxLength: number | undefined;
}

/**
 * @param kind A folder with an ONNX file alone is not opened.
 * @param found What is wrong with the weights already.
 */
export async function describeModel(
  given: string,
  folder: string,
  kind: "model" | "onnx",
  found: Problem | undefined,
): Promise<{ model: ModelDescription; problem: Problem | undefined }> {
  const config = await readJsonObject(path.join(folder, "config.json")).catch(() => undefined);
  const prompts = await readJsonObject(path.join(given, "config_sentence_transformers.json")).catch(
    () => undefined,
  );
  const modules = await readSentenceModules(given).catch(() => undefined);
  let model: ModelFolder | undefined;
  let problem = found;
  if (kind === "model") {
    try {
      model = await openModelFolder(given);
    } catch (error) {
      problem ??= asProblem(error);
    }
  }
  return {
    problem,
    model: {
      modelType: typeof config?.model_type === "string" ? config.model_type : null,
      architectures: Array.isArray(config?.architectures) ? config.architectures.map(String) : [],
      shape: model?.shape,
      pooling: model?.pooling,
      normalize: modules?.normalize,
      prompts: (prompts?.prompts ?? {}) as Record<string, unknown>,
      pooler: model?.hasPooler,
      quantized: model?.quantized,
      memory: model === undefined ? [] : memoryOf(model),
      defaultMaxLength: model && encodingMaxLength(model),
    },
  };
}

/** Quantised weights stay as they are. */
function memoryOf({ shape, quantized }: ModelFolder): ModelDescription["memory"] {
  const ways =
    quantized === undefined ? (["float32", "float16", "int8", "nf4"] as const).map(heldAs) : [quantized];
  return ways.map((held) => ({ format: held.format, bytes: frozenBytes(shape, held) }));
}
