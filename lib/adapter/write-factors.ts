import { copyFile, readdir } from "node:fs/promises";
import path from "node:path";
import { fileError, outputError } from "../data/file-error.js";
import { type FloatType, floatTensor, writeSafetensors } from "../model/tensor-writer.js";
import { writeDurably } from "./durable.js";
import type { Factors } from "./factors.js";
import { CONFIG_FILE, TOKENIZER_FILES, WEIGHTS_FILE } from "./folder.js";
import { type AdapterRecord, formatRecord, RECORD_FILE } from "./record.js";
import { factorKey, type KeyLayout } from "./stored-adapter.js";

export interface FactorFiles {
  modules: ReadonlyMap<string, Factors>;
  /** Text of adapter_config.json. */
  config: string;
  record: AdapterRecord | undefined;
  dtype: FloatType;
  layout: KeyLayout;
  /** Folder whose tokenizer goes along, where it has one. */
  tokenizer: string;
}

/** Writes an adapter from its matrices into a folder that nobody reads yet. @throws OUTPUT_UNWRITABLE, FILE_UNREADABLE */
export async function writeFactors(folder: string, files: FactorFiles): Promise<void> {
  await copyTokenizer(files.tokenizer, folder);
  const names = [...files.modules.keys()].sort();
  const tensors = names.flatMap((name) => {
    const { rank, inputs, outputs, a, b } = files.modules.get(name) as Factors;
    return (
      [
        ["A", [rank, inputs], a],
        ["B", [outputs, rank], b],
      ] as const
    ).map(([side, shape, values]) =>
      floatTensor(factorKey(name, side, files.layout), shape, files.dtype, async () =>
        Float32Array.from(values),
      ),
    );
  });
  await writeSafetensors(path.join(folder, WEIGHTS_FILE), tensors);
  if (files.record !== undefined) {
    await writeDurably(path.join(folder, RECORD_FILE), formatRecord(files.record));
  }
  await writeDurably(path.join(folder, CONFIG_FILE), files.config);
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
