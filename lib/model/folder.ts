import { access, readdir } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import type { ModelShape, Pooling, WeightStorage } from "../native/types.js";
import { parseModelConfig } from "./config.js";
import { sha256 } from "./fingerprint.js";
import { readJsonObject } from "./json-file.js";
import { readSentenceModules } from "./pooling.js";
import { parseQuantizationConfig, readQuantization } from "./quantization.js";
import { askedOutlierFraction } from "./quantized-from.js";
import { readSafetensorsHeader, type TensorHeader } from "./safetensors-header.js";
import { readSequenceLength } from "./sequence-length.js";
import { findModel, type HubOrigin } from "./source.js";

/** A model folder in Hugging Face layout, checked but not loaded. */
export interface ModelFolder {
  /** As the user gave it, without a revision: what adapter_config.json will say. */
  name: string;
  /** Of a model of the Hub. */
  hub: HubOrigin | undefined;
  /** Absolute folder of modules.json, where there is one. */
  root: string;
  /** Absolute folder of config.json, model.safetensors and tokenizer.json. */
  path: string;
  weightsPath: string;
  shape: ModelShape;
  pooling: Pooling;
  /** Tokens that sentence-transformers cuts texts at; undefined for a folder that is not one of it. */
  sequenceLength: number | undefined;
  /** Whether the weights hold pooler.dense, which target patterns may then match. */
  hasPooler: boolean;
  /** How the file holds its linear layers where it is quantised; undefined for plain numbers. */
  quantized: WeightStorage | undefined;
}

/**
 * Opens a model folder: config.json, model.safetensors and tokenizer.json, below a modules.json where there is one. What
 * is no folder is looked for on the Hugging Face Hub.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_UNSUPPORTED, MODEL_CORRUPT; HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED or
 * ABORTED for a name on the Hub.
 */
export async function openModelFolder(given: string, hub: HubAccess = {}): Promise<ModelFolder> {
  const { folder: root, name, hub: origin } = await findModel(given, hub);
  const modules = await readSentenceModules(root);
  const folder = path.join(root, modules.transformerPath);
  const configPath = path.join(folder, "config.json");
  const config = await readJsonObject(configPath);
  if (config === undefined) throw await missingConfig(folder);
  const shape = parseModelConfig(config, configPath);
  const quantization = parseQuantizationConfig(config, configPath);
  const weightsPath = path.join(folder, "model.safetensors");
  const names = await readdir(folder);
  if (!names.includes("model.safetensors")) throw missingWeights(folder, names);
  const tensors = await readSafetensorsHeader(weightsPath);
  await requireTokenizer(folder);
  checkVocabulary(tensors, shape, weightsPath);
  return {
    name,
    hub: origin,
    root,
    path: folder,
    weightsPath,
    shape,
    pooling: modules.pooling,
    sequenceLength: await readSequenceLength(root, folder, shape.maxPositions),
    hasPooler: withPrefixes("pooler.dense.weight").some((key) => tensors.has(key)),
    quantized: await asAsked(
      await readQuantization(quantization, configPath, tensors, weightsPath),
      folder,
      weightsPath,
    ),
  };
}

/** With the fraction of outliers that was asked for, so that asking for it again is no contradiction. */
async function asAsked(
  held: WeightStorage | undefined,
  folder: string,
  weightsPath: string,
): Promise<WeightStorage | undefined> {
  if (held === undefined || held.outlierFraction === 0) return held;
  const asked = await askedOutlierFraction(folder, (await sha256(weightsPath)).hash);
  return { ...held, outlierFraction: asked ?? held.outlierFraction };
}

/** Keys of BertModel, alone or inside a model with a head. */
function withPrefixes(key: string): string[] {
  return ["", "bert.", "model."].map((prefix) => prefix + key);
}

/** The cheapest sign that config.json and weights are of two models; the engine compares every shape. */
function checkVocabulary(tensors: Map<string, TensorHeader>, shape: ModelShape, file: string): void {
  const key = withPrefixes("embeddings.word_embeddings.weight").find((name) => tensors.has(name));
  const found = key === undefined ? undefined : tensors.get(key)?.shape;
  if (found === undefined) {
    throw new PeftTrainError("MODEL_CORRUPT", `${file} has no tensor embeddings.word_embeddings.weight`, {
      hint: "Give a folder that transformers' BertModel.save_pretrained wrote.",
    });
  }
  if (found[0] !== shape.vocabSize || found[1] !== shape.hiddenSize) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file} has word embeddings of shape [${found.join(", ")}], config.json asks for ` +
        `[${shape.vocabSize}, ${shape.hiddenSize}]`,
      { hint: "config.json and model.safetensors do not belong together." },
    );
  }
}

async function missingConfig(folder: string): Promise<PeftTrainError> {
  const isAdapter = await exists(path.join(folder, "adapter_config.json"));
  return new PeftTrainError(
    "MODEL_CORRUPT",
    isAdapter
      ? `${folder} is an adapter, not a model: it has adapter_config.json and no config.json`
      : `expected a model folder, ${folder} has no config.json`,
    {
      hint: isAdapter
        ? "Give its base model as --model_name_or_path and this folder as --adapter."
        : "A model folder holds config.json, model.safetensors and tokenizer.json, as save_pretrained writes them.",
    },
  );
}

function missingWeights(folder: string, names: string[]): PeftTrainError {
  if (names.includes("model.safetensors.index.json")) {
    return new PeftTrainError("MODEL_UNSUPPORTED", `the weights in ${folder} are split into several files`, {
      hint: `Save them as one: AutoModel.from_pretrained(${JSON.stringify(folder)}).save_pretrained(other, max_shard_size="100GB").`,
    });
  }
  const pickled = names.find((name) => name === "pytorch_model.bin" || name.endsWith(".ckpt"));
  if (pickled !== undefined) {
    return new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `${folder} has ${pickled} and no model.safetensors; pickled weights can run code and are not read`,
      {
        hint: `Convert them with Python: AutoModel.from_pretrained(${JSON.stringify(folder)}).save_pretrained(other), then give that folder.`,
      },
    );
  }
  return new PeftTrainError("MODEL_CORRUPT", `expected model.safetensors in ${folder}, found no such file`, {
    hint: "A model folder holds config.json, model.safetensors and tokenizer.json, as save_pretrained writes them.",
  });
}

async function requireTokenizer(folder: string): Promise<void> {
  if (await exists(path.join(folder, "tokenizer.json"))) return;
  const slow = await exists(path.join(folder, "vocab.txt"));
  throw new PeftTrainError("MODEL_CORRUPT", `expected tokenizer.json in ${folder}, found no such file`, {
    hint: slow
      ? `vocab.txt alone is not enough; write it with Python: AutoTokenizer.from_pretrained(${JSON.stringify(folder)}).save_pretrained(...).`
      : "Copy it from the model's origin, or save it with AutoTokenizer.save_pretrained.",
  });
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
