import path from "node:path";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { readJsonObject } from "../model/json-file.js";
import { TensorFile } from "../model/tensor-file.js";
import { type AdapterConfig, parseAdapterConfig } from "./config.js";
import type { LoraFactors } from "./factors.js";
import { CONFIG_FILE, findAdapter, missingConfig, requireWeights, WEIGHTS_FILE } from "./folder.js";
import { splitsBase } from "./lora-config.js";
import { isWrappedTwin, ownParameterOf } from "./own-parameters.js";
import { type AdapterRecord, RECORD_FILE, readRecord } from "./record.js";
import { rankAndScale } from "./targets.js";

const PREFIX = "base_model.model.";

/** Names of tensors: as PEFT writes them for an encoder, or for one that is the attribute `model` of a wrapper. */
export type KeyLayout = "plain" | "wrapped";

/** A parameter of the base model of which an adapter has its own. */
export interface StoredParameter {
  /** In its file, without the prefix before BertModel's names: `base_layer.bias` is the bias of a matrix that LoRA wraps. */
  key: string;
  shape: readonly number[];
  values: Float32Array;
}

/** An adapter as its folder holds it, read without a base model. */
export interface StoredAdapter {
  /** As the user gave it. */
  name: string;
  folder: string;
  config: AdapterConfig;
  /** Undefined for a folder that PEFT wrote. */
  record: AdapterRecord | undefined;
  /** By the module's name inside BertModel, in the order of the file. */
  modules: Map<string, LoraFactors>;
  /** modules_to_save and trained biases, by the parameter's name inside BertModel. */
  own: Map<string, StoredParameter>;
  layout: KeyLayout;
  /** As safetensors calls the type of its numbers; several where they differ. */
  dtypes: string[];
}

/** What A and B may run over: the base model's weights alone, or also what PiSSA and OLoRA left of them. */
export type Accepted = "over-base" | "any";

/**
 * Reads an adapter folder of ours or of PEFT, in either layout of tensor names.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, ADAPTER_UNSUPPORTED for more than is accepted, ADAPTER_MISMATCH
 * where configuration and tensors disagree, NOT_FINITE; HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED or ABORTED.
 */
export async function readStoredAdapter(
  name: string,
  hub: HubAccess = {},
  accepted: Accepted = "over-base",
): Promise<StoredAdapter> {
  const folder = await findAdapter(name, hub);
  const configPath = path.join(folder, CONFIG_FILE);
  const json = await readJsonObject(configPath);
  if (json === undefined) throw await missingConfig(folder);
  const config = parseAdapterConfig(json, configPath);
  requireAccepted(config, configPath, accepted);
  await requireWeights(folder);
  await using file = await TensorFile.open(path.join(folder, WEIGHTS_FILE));
  const keys = [...file.tensors.keys()];
  const wrapped = keys.length > 0 && keys.every((key) => key.startsWith(`${PREFIX}model.`));
  const prefix = wrapped ? "model." : "";
  const { names, parameters } = namesOf(keys, PREFIX + prefix, config, file.path);
  const modules = new Map<string, LoraFactors>();
  for (const module of names) {
    const factors = await readFactors(file, `${PREFIX}${prefix}${module}`, prefix + module, config);
    modules.set(module, factors);
  }
  const own = new Map<string, StoredParameter>();
  for (const [parameter, key] of parameters) {
    const { shape } = file.header(PREFIX + prefix + key);
    own.set(parameter, { key, shape, values: await finite(file, PREFIX + prefix + key) });
  }
  return {
    name,
    folder,
    config,
    record: await readRecord(path.join(folder, RECORD_FILE)),
    modules,
    own,
    layout: wrapped ? "wrapped" : "plain",
    dtypes: [...new Set([...file.tensors.values()].map(({ dtype }) => dtype))].sort(),
  };
}

/** What runs over a part of the base says nothing without it. */
function requireAccepted({ lora }: AdapterConfig, file: string, accepted: Accepted): void {
  const { initLoraWeights: init } = lora;
  if (accepted === "any" || !splitsBase(init)) return;
  throw new PeftTrainError(
    "ADAPTER_UNSUPPORTED",
    `${file}: init_lora_weights is ${JSON.stringify(init)}, so that it runs over what it left of its base model`,
    { hint: "npx peft-train convert ADAPTER --model BASE --out DIR makes plain LoRA of it." },
  );
}

/** Modules with a pair of LoRA matrices, and parameters of the adapter's own by their keys; anything else is another kind of adapter. */
function namesOf(
  keys: readonly string[],
  prefix: string,
  { lora }: AdapterConfig,
  file: string,
): { names: Set<string>; parameters: Map<string, string> } {
  const names = new Set<string>();
  const parameters = new Map<string, string>();
  for (const full of keys) {
    const key = full.startsWith(prefix) ? full.slice(prefix.length) : "";
    if (isWrappedTwin(key)) continue;
    const module = /^(.*)\.(lora_[AB]\.weight|lora_B\.bias|lora_magnitude_vector)$/.exec(key)?.[1];
    const parameter = module === undefined ? ownParameterOf(key, lora) : undefined;
    if (module !== undefined) names.add(module);
    else if (parameter !== undefined) parameters.set(parameter, key);
    else throw noneOfLora(full, file);
  }
  if (names.size === 0) throw new PeftTrainError("ADAPTER_MISMATCH", `${file} holds no LoRA matrices`);
  return { names, parameters };
}

function noneOfLora(key: string, file: string): PeftTrainError {
  return new PeftTrainError(
    "ADAPTER_UNSUPPORTED",
    `${file}: tensor "${key}" is none of LoRA, and ${CONFIG_FILE} names it in neither bias nor modules_to_save`,
    {
      hint: `Adapters of lora_A and lora_B on linear layers are supported here; their names start with ${PREFIX}`,
    },
  );
}

async function readFactors(
  file: TensorFile,
  key: string,
  module: string,
  { lora }: AdapterConfig,
): Promise<LoraFactors> {
  const [keyA, keyB] = [`${key}.lora_A.weight`, `${key}.lora_B.weight`];
  for (const [wanted, other] of [
    [keyA, keyB],
    [keyB, keyA],
  ] as const) {
    if (file.tensors.has(wanted)) continue;
    throw new PeftTrainError("ADAPTER_MISMATCH", `${file.path} has "${other}" and no "${wanted}"`, {
      hint: "Copy it from the adapter's origin again.",
    });
  }
  const [shapeA, shapeB] = [file.header(keyA).shape, file.header(keyB).shape];
  const { rank, scale } = rankAndScale(lora, module);
  const [rankA = 0, inputs = 0] = shapeA;
  const [outputs = 0, rankB = 0] = shapeB;
  if (shapeA.length !== 2 || shapeB.length !== 2 || rankA !== rank || rankB !== rank) {
    throw new PeftTrainError(
      "ADAPTER_MISMATCH",
      `${file.path}: ${key} has A of shape [${shapeA.join(", ")}] and B of [${shapeB.join(", ")}], ${CONFIG_FILE} asks for rank ${rank}`,
      { hint: `${CONFIG_FILE} and ${WEIGHTS_FILE} do not belong together.` },
    );
  }
  const [a, b] = [Float64Array.from(await finite(file, keyA)), Float64Array.from(await finite(file, keyB))];
  const factors = { rank, inputs, outputs, a, b, scale };
  return {
    ...factors,
    ...(lora.useDora && { magnitude: await ofRows(file, `${key}.lora_magnitude_vector`, outputs) }),
    ...(lora.loraBias && { bias: await ofRows(file, `${key}.lora_B.bias`, outputs) }),
  };
}

/** A number for every output. */
async function ofRows(file: TensorFile, key: string, outputs: number): Promise<Float64Array> {
  if (file.tensors.get(key)?.shape.join() === String(outputs)) {
    return Float64Array.from(await finite(file, key));
  }
  const found = file.tensors.get(key)?.shape;
  throw new PeftTrainError(
    "ADAPTER_MISMATCH",
    `${file.path}: expected "${key}" of shape [${outputs}], found ${found === undefined ? "none" : `[${found.join(", ")}]`}`,
    { hint: `${CONFIG_FILE} and ${WEIGHTS_FILE} do not belong together.` },
  );
}

/** @throws NOT_FINITE */
async function finite(file: TensorFile, key: string): Promise<Float32Array> {
  const values = await file.floats(key);
  if (values.every(Number.isFinite)) return values;
  throw new PeftTrainError("NOT_FINITE", `${file.path}: tensor "${key}" holds NaN or infinity`, {
    hint: "Take an earlier checkpoint of its run.",
  });
}

/** Name of a tensor in a file; `key` without the prefix before BertModel's names. */
export function tensorName(key: string, layout: KeyLayout): string {
  return `${PREFIX}${layout === "wrapped" ? "model." : ""}${key}`;
}
