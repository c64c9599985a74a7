import { copyFile, readdir } from "node:fs/promises";
import path from "node:path";
import { fileError, outputError } from "../data/file-error.js";
import { type FloatType, floatTensor, requireFinite, writeSafetensors } from "../model/tensor-writer.js";
import { writeDurably } from "./durable.js";
import type { Factors, LoraFactors } from "./factors.js";
import { CONFIG_FILE, TOKENIZER_FILES, WEIGHTS_FILE } from "./folder.js";
import { type AdapterRecord, formatRecord, RECORD_FILE } from "./record.js";
import { type KeyLayout, type StoredParameter, tensorName } from "./stored-adapter.js";

export interface FactorFiles {
  modules: ReadonlyMap<string, Factors & Pick<LoraFactors, "magnitude" | "bias">>;
  own: ReadonlyMap<string, StoredParameter>;
  /** Text of adapter_config.json. */
  config: string;
  record: AdapterRecord | undefined;
  dtype: FloatType;
  layout: KeyLayout;
  /** Folder whose tokenizer goes along, where it has one. */
  tokenizer: string;
}

/** Writes an adapter from its matrices into a folder that nobody reads yet. @throws NOT_FINITE, OUTPUT_UNWRITABLE, FILE_UNREADABLE */
export async function writeFactors(folder: string, files: FactorFiles): Promise<void> {
  await copyTokenizer(files.tokenizer, folder);
  const { dtype } = files;
  const tensors = tensorsOf(files).map(([key, shape, values]) =>
    floatTensor(tensorName(key, files.layout), shape, dtype, async () => {
      const rounded = Float32Array.from(values);
      requireFinite(key, rounded, dtype, "the adapter");
      return rounded;
    }),
  );
  await writeSafetensors(path.join(folder, WEIGHTS_FILE), tensors);
  if (files.record !== undefined) {
    await writeDurably(path.join(folder, RECORD_FILE), formatRecord(files.record));
  }
  await writeDurably(path.join(folder, CONFIG_FILE), files.config);
}

type Tensor = [key: string, shape: readonly number[], values: Float64Array | Float32Array];

/** By their keys without the prefix before BertModel's names, in the order of these. */
function tensorsOf({ modules, own }: FactorFiles): Tensor[] {
  const ofModules = [...modules].flatMap(([name, { rank, inputs, outputs, a, b, magnitude, bias }]) => {
    const tensors: Tensor[] = [
      [`${name}.lora_A.weight`, [rank, inputs], a],
      [`${name}.lora_B.weight`, [outputs, rank], b],
    ];
    if (bias !== undefined) tensors.push([`${name}.lora_B.bias`, [outputs], bias]);
    if (magnitude !== undefined) tensors.push([`${name}.lora_magnitude_vector`, [outputs], magnitude]);
    return tensors;
  });
  const ofBase = [...own.values()].map(({ key, shape, values }): Tensor => [key, shape, values]);
  return [...ofModules, ...ofBase].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** PEFT's own folders have none. */
async function copyTokenizer(from: string, to: string): Promise<void> {
  const names = await readdir(from).catch((cause) => {
    throw fileError(from, cause);
  });
  for (const name of TOKENIZER_FILES.filter((file) => names.includes(file))) {
    await copyFile(path.join(from, name), path.join(to, name)).catch((cause) => {
      throw outputError(path.join(to, name), cause);
    });
  }
}
