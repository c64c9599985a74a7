import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export function quantPath(name: string): string {
  return fileURLToPath(new URL(`../fixtures/quant/${name}`, import.meta.url));
}

/** Copies a folder that transformers and bitsandbytes wrote, and puts a tokenizer beside it. */
export function copyQuantModel(
  name: string,
  folder: string,
  change: (config: Record<string, unknown>) => void = () => {},
): string {
  cpSync(quantPath(name), folder, { recursive: true });
  cpSync(join(quantPath("../tokenizer"), "tokenizer.json"), join(folder, "tokenizer.json"));
  const file = join(folder, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8"));
  change(config);
  writeFileSync(file, JSON.stringify(config));
  return folder;
}

export interface RawTensor {
  dtype: string;
  shape: number[];
  bytes: Buffer;
}

/** Every tensor of a safetensors file as it stands there: a reader of the tests' own, for any dtype. */
export function readRaw(file: string): Map<string, RawTensor> {
  const content = readFileSync(file);
  const start = 8 + Number(content.readBigUInt64LE(0));
  const header = JSON.parse(content.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, RawTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = entry.data_offsets;
    const { dtype, shape } = entry;
    tensors.set(name, { dtype, shape, bytes: content.subarray(start + begin, start + end) });
  }
  return tensors;
}

export interface ExpectedEmbeddings {
  tokenIds: number[][];
  /** By folder, mean-pooled and normalised; computed in float32 from the dequantised weights. */
  embeddings: Record<string, number[][]>;
  /** The same with word embeddings in float16, as the engine holds them beside quantised weights. */
  halfWords: Record<string, number[][]>;
}

export function expectedEmbeddings(): ExpectedEmbeddings {
  return JSON.parse(readFileSync(quantPath("expected.json"), "utf8"));
}
