import { product } from "../adapter/factors.js";
import type { StoredAdapter } from "../adapter/stored-adapter.js";
import { PeftTrainError } from "../errors.js";
import type { ModelWeights } from "../model/model-weights.js";
import type { FloatType } from "../model/tensor-writer.js";

/** Numbers of a tensor of the base, by its name there, as they are with the adapter. */
export type MergeTensor = (name: string, values: Float32Array) => Float32Array;

/**
 * W, or W + scale * B A where the adapter has a module, summed in double precision and rounded once.
 * @param type What the result is to be held in: it has to fit.
 * @throws ADAPTER_MISMATCH for an adapter of other modules; what it returns, NOT_FINITE.
 */
export function mergeTensors(
  weights: ModelWeights,
  adapter: StoredAdapter | undefined,
  type: FloatType,
): MergeTensor {
  const targets = adapter === undefined ? new Map<string, string>() : targetTensors(weights, adapter);
  return (name, values) => {
    const module = targets.get(name);
    const factors = module === undefined ? undefined : adapter?.modules.get(module);
    const merged = factors === undefined ? values : added(values, product(factors, factors.scale));
    requireFinite(name, merged, type, weights.file.path);
    return merged;
  };
}

/** Modules of the adapter by the names of the tensors that they change. */
function targetTensors(weights: ModelWeights, adapter: StoredAdapter): Map<string, string> {
  const { file, prefix } = weights;
  const targets = new Map<string, string>();
  for (const [module, { inputs, outputs }] of adapter.modules) {
    const name = `${prefix}${module}.weight`;
    const shape = file.tensors.has(name) ? weights.shape(name) : [];
    if (shape.length !== 2 || shape[0] !== outputs || shape[1] !== inputs) {
      const found = file.tensors.has(name) ? `of shape [${shape.join(", ")}]` : "not there";
      throw new PeftTrainError(
        "ADAPTER_MISMATCH",
        `${adapter.name} changes ${module} of shape [${outputs}, ${inputs}]; in ${file.path} it is ${found}`,
        { hint: "Give the base model that the adapter was trained on." },
      );
    }
    targets.set(name, module);
  }
  return targets;
}

function added(values: Float32Array, delta: Float64Array): Float32Array {
  return values.map((value, i) => value + (delta[i] as number));
}

/** float16 ends at 65,504; what comes beyond becomes infinity. */
function requireFinite(name: string, values: Float32Array, type: FloatType, file: string): void {
  const limit = type === "float16" ? 65_520 : Number.POSITIVE_INFINITY;
  if (values.every((value) => Math.abs(value) < limit)) return;
  throw new PeftTrainError("NOT_FINITE", `"${name}" of ${file} would hold NaN or infinity in ${type}`, {
    hint:
      type === "float16"
        ? "Take float32 or bfloat16."
        : "The weights, or what the adapter adds to them, are broken.",
  });
}
