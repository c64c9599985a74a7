import path from "node:path";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { readJsonObject } from "../model/json-file.js";
import { TensorFile } from "../model/tensor-file.js";
import { type AdapterConfig, parseAdapterConfig } from "./config.js";
import type { LoraFactors } from "./factors.js";
import { CONFIG_FILE, findAdapter, missingConfig, requireWeights, WEIGHTS_FILE } from "./folder.js";
import { splitsBase } from "./lora-config.js";
import { type AdapterRecord, RECORD_FILE, readRecord } from "./record.js";
import { rankAndScale } from "./targets.js";

const PREFIX = "base_model.model.";

/** Names of tensors: as PEFT writes them for an encoder, or for one that is the attribute `model` of a wrapper. */
export type KeyLayout = "plain" | "wrapped";

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
  layout: KeyLayout;
  /** As safetensors calls the type of its numbers; several where they differ. */
  dtypes: string[];
}

/** What may be more than A and B over the base: nothing; what merges into it; anything that this package runs. */
export type Accepted = "plain" | "mergeable" | "any";

/**
 * Reads an adapter folder of ours or of PEFT, in either layout of tensor names.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, ADAPTER_UNSUPPORTED for more than is accepted, ADAPTER_MISMATCH
 * where configuration and tensors disagree, NOT_FINITE; HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED or ABORTED.
 */
export async function readStoredAdapter(
  name: string,
  hub: HubAccess = {},
  accepted: Accepted = "plain",
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
  const modules = new Map<string, LoraFactors>();
  for (const module of moduleNames(keys, PREFIX + prefix, file.path)) {
    const factors = await readFactors(file, `${PREFIX}${prefix}${module}`, prefix + module, config);
    modules.set(module, factors);
  }
  return {
    name,
    folder,
    config,
    record: await readRecord(path.join(folder, RECORD_FILE)),
    modules,
    layout: wrapped ? "wrapped" : "plain",
    dtypes: [...new Set([...file.tensors.values()].map(({ dtype }) => dtype))].sort(),
  };
}

/** What is more than A and B over the base cannot be taken apart into them. */
function requireAccepted({ lora }: AdapterConfig, file: string, accepted: Accepted): void {
  const { initLoraWeights: init, useDora, loraBias } = lora;
  const split = splitsBase(init) && accepted !== "any";
  const more = accepted === "plain" ? (useDora ? "use_dora" : loraBias ? "lora_bias" : undefined) : undefined;
  if (more === undefined && !split) return;
  const found = more === undefined ? `init_lora_weights is "${String(init)}"` : `${more} is true`;
  const taken = accepted === "plain" ? "plain LoRA" : "LoRA over the base weights themselves";
  throw new PeftTrainError("ADAPTER_UNSUPPORTED", `${file}: ${found}; here only ${taken} is supported`, {
    hint: split
      ? "Convert it with PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...) writes plain LoRA."
      : "Train, encode, eval, merge and export take it.",
  });
}

/** Modules with a pair of LoRA matrices; anything else in the file is another kind of adapter. */
function moduleNames(keys: readonly string[], prefix: string, file: string): Set<string> {
  const names = new Set<string>();
  for (const key of keys) {
    const module = /^(.*)\.(lora_[AB]\.weight|lora_B\.bias|lora_magnitude_vector)$/.exec(key)?.[1];
    if (module === undefined || !module.startsWith(prefix)) {
      throw new PeftTrainError("ADAPTER_UNSUPPORTED", `${file}: tensor "${key}" is none of LoRA`, {
        hint: `Adapters of lora_A and lora_B on linear layers are supported here; their names start with ${PREFIX}`,
      });
    }
    names.add(module.slice(prefix.length));
  }
  if (names.size === 0) throw new PeftTrainError("ADAPTER_MISMATCH", `${file} holds no LoRA matrices`);
  return names;
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
  const factors = { rank, inputs, outputs, a: await finite(file, keyA), b: await finite(file, keyB), scale };
  return {
    ...factors,
    ...(lora.useDora && { magnitude: await ofRows(file, `${key}.lora_magnitude_vector`, outputs) }),
    ...(lora.loraBias && { bias: await ofRows(file, `${key}.lora_B.bias`, outputs) }),
  };
}

/** A number for every output. */
async function ofRows(file: TensorFile, key: string, outputs: number): Promise<Float64Array> {
  if (file.tensors.get(key)?.shape.join() === String(outputs)) return finite(file, key);
  const found = file.tensors.get(key)?.shape;
  throw new PeftTrainError(
    "ADAPTER_MISMATCH",
    `${file.path}: expected "${key}" of shape [${outputs}], found ${found === undefined ? "none" : `[${found.join(", ")}]`}`,
    { hint: `${CONFIG_FILE} and ${WEIGHTS_FILE} do not belong together.` },
  );
}

/** @throws NOT_FINITE */
async function finite(file: TensorFile, key: string): Promise<Float64Array> {
  const values = Float64Array.from(await file.floats(key));
  if (values.every(Number.isFinite)) return values;
  throw new PeftTrainError("NOT_FINITE", `${file.path}: tensor "${key}" holds NaN or infinity`, {
    hint: "Take an earlier checkpoint of its run.",
  });
}

/** Name of a module's tensor in a file. */
export function factorKey(module: string, side: "A" | "B", layout: KeyLayout = "plain"): string {
  return `${PREFIX}${layout === "wrapped" ? "model." : ""}${module}.lora_${side}.weight`;
}
