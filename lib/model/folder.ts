import { access, readdir, stat } from "node:fs/promises";
import path from "node:path";
import { fileError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import type { ModelShape, Pooling, WeightStorage } from "../native/types.js";
import { parseModelConfig } from "./config.js";
import { sha256 } from "./fingerprint.js";
import { readJsonObject } from "./json-file.js";
import { readSentenceModules } from "./pooling.js";
import { parseQuantizationConfig, readQuantization } from "./quantization.js";
import { askedOutlierFraction } from "./quantized-from.js";
import { readSafetensorsHeader, type TensorHeader } from "./safetensors-header.js";

/** A model folder in Hugging Face layout, checked but not loaded. */
export interface ModelFolder {
  /** As the user gave it: what adapter_config.json will say. */
  name: string;
  /** Absolute folder of config.json, model.safetensors and tokenizer.json. */
  path: string;
  weightsPath: string;
  shape: ModelShape;
  pooling: Pooling;
  /** Whether the weights hold pooler.dense, which target patterns may then match. */
  hasPooler: boolean;
  /** How the file holds its linear layers where it is quantised; undefined for plain numbers. */
  quantized: WeightStorage | undefined;
}

/**
 * Opens a model folder: config.json, model.safetensors and tokenizer.json, below a modules.json where there is one.
 * @throws NOT_YET_AVAILABLE for a name on the Hugging Face Hub, FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_UNSUPPORTED
 * or MODEL_CORRUPT.
 */
export async function openModelFolder(name: string): Promise<ModelFolder> {
  await requireFolder(name);
  const root = path.resolve(name);
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
    path: folder,
    weightsPath,
    shape,
    pooling: modules.pooling,
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

async function requireFolder(name: string): Promise<void> {
  let isFolder: boolean;
  try {
    isFolder = (await stat(name)).isDirectory();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw fileError(name, cause);
    // A namespace and a repository, as the Hub writes them; a path with a dot in front or deeper is a path.
    if (/^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/.test(name)) {
      throw new PeftTrainError(
        "NOT_YET_AVAILABLE",
        `there is no folder ${name}, and downloading from the Hugging Face Hub is not ` +
          "available in this version",
        {
          hint: `Give a folder that holds the model: git clone https://huggingface.co/${name} (with Git LFS).`,
        },
      );
    }
    throw fileError(name, cause);
  }
  if (!isFolder) {
    throw new PeftTrainError("FILE_UNREADABLE", `expected a model folder, ${name} is a file`, {
      hint: "Give the folder that holds config.json and model.safetensors.",
    });
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
