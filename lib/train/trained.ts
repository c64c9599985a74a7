import type { NativeEncoder } from "../native/types.js";
import type { Plan } from "./preparation.js";

// What a run trains, an adapter or the whole model, as the engine has it.

/** A model that trains itself is there already, in an engine that was opened for it. */
export async function beginWith({ adapter, options }: Plan, native: NativeEncoder): Promise<void> {
  if (adapter !== undefined) await native.createAdapter(adapter.spec, options.seed);
}

/** From the weights of a checkpoint. */
export function goOnWith({ adapter }: Plan, native: NativeEncoder, weights: string): Promise<void> {
  return adapter === undefined ? native.loadModel(weights) : native.loadAdapter(weights, adapter.spec);
}

/** Writes the weights as they stand, and syncs the file. */
export function saveTrained({ adapter }: Plan, native: NativeEncoder, file: string): Promise<void> {
  return adapter === undefined ? native.saveModel(file) : native.saveAdapter(file);
}
