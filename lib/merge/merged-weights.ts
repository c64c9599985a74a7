import { type LoraFactors, product } from "../adapter/factors.js";
import type { StoredAdapter } from "../adapter/stored-adapter.js";
import { PeftTrainError } from "../errors.js";
import type { ModelWeights } from "../model/model-weights.js";
import { type FloatType, requireFinite } from "../model/tensor-writer.js";

/** Numbers of a tensor of the base, by its name there, as they are with the adapter. */
export type MergeTensor = (name: string, values: Float32Array) => Float32Array;

/**
 * The adapter's own tensor where it has one; else W, or W + scale * B A where the adapter has a module, every row of it brought to its magnitude with DoRA; b + scale * B's bias. All
 * in double precision and rounded once; an own bias is what B's bias is added to.
 * @param type What the result is to be held in: it has to fit.
 * @throws ADAPTER_MISMATCH for an adapter of other modules; what it returns, NOT_FINITE.
 */
export function mergeTensors(
  weights: ModelWeights,
  adapter: StoredAdapter | undefined,
  type: FloatType,
): MergeTensor {
  const targets = adapter === undefined ? new Map<string, string>() : targetTensors(weights, adapter);
  const own = adapter === undefined ? new Map<string, Float32Array>() : ownTensors(weights, adapter);
  return (name, found) => {
    const values = own.get(name) ?? found;
    const module = targets.get(name);
    const factors = module === undefined ? undefined : adapter?.modules.get(module);
    const merged =
      factors === undefined
        ? values
        : name.endsWith(".bias")
          ? values.map((value, i) => value + factors.scale * (factors.bias?.[i] as number))
          : adapted(values, factors);
    requireFinite(name, merged, type, weights.file.path);
    return merged;
  };
}

/** Modules of the adapter by the names of the tensors that they change. */
function targetTensors(weights: ModelWeights, adapter: StoredAdapter): Map<string, string> {
  const targets = new Map<string, string>();
  for (const [module, { inputs, outputs, bias }] of adapter.modules) {
    targets.set(requireTensor(weights, adapter, `${module}.weight`, [outputs, inputs]), module);
    if (bias) targets.set(requireTensor(weights, adapter, `${module}.bias`, [outputs]), module);
  }
  return targets;
}

/** Numbers of the adapter that take the place of the base's, by the names of these. */
function ownTensors(weights: ModelWeights, adapter: StoredAdapter): Map<string, Float32Array> {
  return new Map(
    [...adapter.own].map(([name, { shape, values }]) => [
      requireTensor(weights, adapter, name, shape),
      values,
    ]),
  );
}

/** @returns Its name in the file. @throws ADAPTER_MISMATCH unless it is there, and of the shape. */
function requireTensor(
  weights: ModelWeights,
  adapter: StoredAdapter,
  name: string,
  shape: readonly number[],
): string {
  const full = weights.prefix + name;
  const { file } = weights;
  const found = file.tensors.has(full) ? `[${weights.shape(full).join(", ")}]` : undefined;
  if (found === `[${shape.join(", ")}]`) return full;
  throw new PeftTrainError(
    "ADAPTER_MISMATCH",
    `${adapter.name} changes ${name}, of shape [${shape.join(", ")}]; in ${file.path} it is ` +
      (found === undefined ? "not there" : `of shape ${found}`),
    { hint: "Give the base model that the adapter was trained on." },
  );
}

function adapted(values: Float32Array, factors: LoraFactors): Float32Array {
  const { inputs, outputs, magnitude } = factors;
  const sum = product(factors, factors.scale);
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (values[i] as number);
  for (let row = 0; magnitude !== undefined && row < outputs; row++) {
    const entries = sum.subarray(row * inputs, (row + 1) * inputs);
    const gain =
      (magnitude[row] as number) / Math.sqrt(entries.reduce((all, value) => all + value * value, 0));
    for (let j = 0; j < inputs; j++) entries[j] = (entries[j] as number) * gain;
  }
  return Float32Array.from(sum);
}
