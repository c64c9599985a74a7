import { readFile } from "node:fs/promises";
import path from "node:path";
import { writeDurably } from "../adapter/durable.js";
import type { StoredAdapter } from "../adapter/stored-adapter.js";
import { fileError } from "../data/file-error.js";
import { copyDescription } from "../model/description.js";
import type { ModelFolder } from "../model/folder.js";
import type { JsonObject } from "../model/json-file.js";
import { ModelWeights } from "../model/model-weights.js";
import { type FloatType, writeSafetensors } from "../model/tensor-writer.js";
import { mergeTensors } from "./merged-weights.js";

/**
 * Writes a model folder of plain numbers into `draft`: the source's files with other weights.
 * @param layout With the source's modules, or `flat`: the encoder and its tokenizer alone.
 * @returns The folder of config.json and model.safetensors, which may lie below `draft`.
 */
export async function writeModelFolder(
  draft: string,
  model: ModelFolder,
  adapter: StoredAdapter | undefined,
  type: FloatType,
  layout: "as-source" | "flat" = "as-source",
): Promise<string> {
  const flat = layout === "flat";
  const target = flat ? draft : path.join(draft, path.relative(model.root, model.path));
  await copyDescription(flat ? { ...model, root: model.path } : model, draft, target, !flat);
  await using weights = await ModelWeights.open(model.weightsPath);
  const sources = weights.sources(type, mergeTensors(weights, adapter, type));
  await writeSafetensors(path.join(target, "model.safetensors"), sources);
  await writeDurably(path.join(target, "config.json"), await plainConfig(model, type));
  return target;
}

/** The source's config.json for weights that are not quantised. */
export async function plainConfig(model: ModelFolder, type: FloatType): Promise<string> {
  const file = path.join(model.path, "config.json");
  const text = await readFile(file, "utf8").catch((cause) => {
    throw fileError(file, cause);
  });
  const { quantization_config: _, ...config } = JSON.parse(text.replace(/^\uFEFF/, "")) as JsonObject;
  // transformers calls it dtype since 4.56, and reads both.
  const key = "dtype" in config ? "dtype" : "torch_dtype";
  return `${JSON.stringify({ ...config, [key]: type }, null, 2)}\n`;
}
