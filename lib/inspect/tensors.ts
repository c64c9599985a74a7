import { readSafetensorsHeader } from "../model/safetensors-header.js";

/** A tensor of a safetensors file. */
export interface TensorDescription {
  /** In the file. */
  name: string;
  /** As safetensors calls it: F32, BF16, U8. */
  dtype: string;
  /** Sizes of its dimensions. */
  shape: number[];
  /** In the file. */
  bytes: number;
}

/** What a safetensors file holds. */
export interface TensorsDescription {
  /** Path of the file. */
  file: string;
  /** Of the data, without the header. */
  bytes: number;
  /** Numbers, or codes, in all tensors. */
  elements: number;
  /** Each type once, with the bytes of its tensors. */
  types: {
    /** As safetensors calls it. */
    dtype: string;
    /** Of all its tensors. */
    bytes: number;
  }[];
  /** In the order of the file. */
  tensors: TensorDescription[];
}

/** @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT */
export async function describeTensors(file: string): Promise<TensorsDescription> {
  const tensors = [...(await readSafetensorsHeader(file))].map(([name, { dtype, shape, begin, end }]) => ({
    name,
    dtype,
    shape,
    bytes: end - begin,
  }));
  const types = new Map<string, number>();
  for (const { dtype, bytes } of tensors) types.set(dtype, (types.get(dtype) ?? 0) + bytes);
  return {
    file,
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    elements: tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0),
    types: [...types].map(([dtype, bytes]) => ({ dtype, bytes })),
    tensors,
  };
}
