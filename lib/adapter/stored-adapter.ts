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

/**
 * Reads an adapter folder of ours or of PEFT, in either layout of tensor names.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, ADAPTER_UNSUPPORTED for anything but plain LoRA, ADAPTER_MISMATCH
 * where configuration and tensors disagree, NOT_FINITE; HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED or ABORTED.
 */
export async function readStoredAdapter(name: string, hub: HubAccess = {}): Promise<StoredAdapter> {
  const folder = await findAdapter(name, hub);
  const configPath = path.join(folder, CONFIG_FILE);
  const json = await readJsonObject(configPath);
  if (json === undefined) throw await missingConfig(folder);
  const config = parseAdapterConfig(json, configPath);
  requirePlain(config, configPath);
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

/** What runs here and is more than A and B over the base cannot be taken apart into them. */
function requirePlain({ lora }: AdapterConfig, file: string): void {
  const { initLoraWeights: init, useDora, loraBias } = lora;
  const more = useDora
    ? "use_dora is true"
    : loraBias
      ? "lora_bias is true"
      : splitsBase(init)
        ? `init_lora_weights is "${init}"`
        : undefined;
  if (more === undefined) return;
  throw new PeftTrainError("ADAPTER_UNSUPPORTED", `${file}: ${more}; here only plain LoRA is supported`, {
    hint: splitsBase(init)
      ? "Convert it with PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...) writes plain LoRA."
      : "Train, encode and eval take it; merge it with PEFT's merge_and_unload().",
  });
}

/** Modules with a pair of LoRA matrices; anything else in the file is another kind of adapter. */
function moduleNames(keys: readonly string[], prefix: string, file: string): Set<string> {
  const names = new Set<string>();
  for (const key of keys) {
    const module = /^(.*)\.lora_[AB]\.weight$/.exec(key)?.[1];
    if (module === undefined || !module.startsWith(prefix)) {
      throw new PeftTrainError("ADAPTER_UNSUPPORTED", `${file}: tensor "${key}" is not of plain LoRA`, {
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
  const a = Float64Array.from(await file.floats(keyA));
  const b = Float64Array.from(await file.floats(keyB));
  for (const [values, name] of [
    [a, keyA],
    [b, keyB],
  ] as const) {
    if (values.every(Number.isFinite)) continue;
    throw new PeftTrainError("NOT_FINITE", `${file.path}: tensor "${name}" holds NaN or infinity`, {
      hint: "Take an earlier checkpoint of its run.",
    });
  }
  return { rank, inputs, outputs, a, b, scale };
}

/** Name of a module's tensor in a file. */
export function factorKey(module: string, side: "A" | "B", layout: KeyLayout = "plain"): string {
  return `${PREFIX}${layout === "wrapped" ? "model." : ""}${module}.lora_${side}.weight`;
}
