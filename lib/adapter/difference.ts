import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { toldCosine } from "../metrics/cosine.js";
import { concatenate, distance, type LoraFactors } from "./factors.js";
import { type SettingDifference, settingDifferences } from "./setting-differences.js";
import { readStoredAdapter, type StoredAdapter } from "./stored-adapter.js";

/** What two adapters add to one matrix, against each other; Frobenius norms of scale * B A. */
export interface ModuleDifference {
  /** Inside BertModel, such as `encoder.layer.0.attention.self.query`. */
  name: string;
  /** Undefined where the adapter does not have the module. */
  rankA: number | undefined;
  /** Likewise of b. */
  rankB: number | undefined;
  /** Frobenius norm of scale * B A; 0 without the module. */
  normA: number;
  /** Likewise of b. */
  normB: number;
  /** |a - b| over the larger of both norms; 0 where both are zero. */
  relativeDifference: number;
  /** Of the two as vectors; 0 where one of them is zero. */
  cosine: number;
}

/**
 * What two adapters hold beside A and B, against each other: DoRA's magnitudes, biases on B times their scale, and parameters of their
 * own. Euclidean norms; undefined where one of them does not have it, for then it has the base model's.
 */
export interface ParameterDifference {
  /** Of the tensor, without the prefix before BertModel's names. */
  name: string;
  /** Euclidean norm. */
  normA: number | undefined;
  /** Likewise of b. */
  normB: number | undefined;
  /** |a - b| over the larger of both norms; 0 where both are zero. */
  relativeDifference: number | undefined;
  /** Of the two as vectors; 0 where one of them is zero. */
  cosine: number | undefined;
}

/** How far two adapters of one base are apart, in all and module by module. */
export interface AdapterDifference extends Omit<ModuleDifference, "name" | "rankA" | "rankB"> {
  /** Module by module, by layer. */
  modules: ModuleDifference[];
  /** None of them is part of the whole's figures. */
  parameters: ParameterDifference[];
  /** Settings of adapter_config.json and peft_train.json that do not say the same. */
  settings: SettingDifference[];
}

/**
 * Holds two adapter folders against each other, module by module and as a whole. The base model is not needed.
 * @throws ADAPTER_MISMATCH for models of other sizes, and as for reading an adapter.
 */
export async function diffAdapters(a: string, b: string, hub: HubAccess = {}): Promise<AdapterDifference> {
  return compareAdapters(await readStoredAdapter(a, hub), await readStoredAdapter(b, hub));
}

/** The same for adapters that are read. @throws ADAPTER_MISMATCH for other shapes. */
export function compareAdapters(a: StoredAdapter, b: StoredAdapter): AdapterDifference {
  const names = [...new Set([...a.modules.keys(), ...b.modules.keys()])].sort(byLayer);
  const modules = names.map((name) => compareModule(name, a, b));
  const sum = (value: (one: ModuleDifference) => number): number =>
    modules.reduce((total, one) => total + value(one), 0);
  const [normA, normB] = [Math.sqrt(sum((one) => one.normA ** 2)), Math.sqrt(sum((one) => one.normB ** 2))];
  const difference = Math.sqrt(sum((one) => (one.relativeDifference * Math.max(one.normA, one.normB)) ** 2));
  const inner = sum((one) => one.cosine * one.normA * one.normB);
  return {
    normA,
    normB,
    relativeDifference: over(difference, Math.max(normA, normB)),
    cosine: toldCosine(over(inner, normA * normB)),
    modules,
    parameters: compareParameters(a, b),
    settings: settingDifferences(a, b),
  };
}

function compareModule(name: string, a: StoredAdapter, b: StoredAdapter): ModuleDifference {
  const [x, y] = [a.modules.get(name), b.modules.get(name)];
  const shared = { name, rankA: x?.rank, rankB: y?.rank };
  if (x === undefined || y === undefined) {
    const norm = distance(scaled((x ?? y) as LoraFactors), scaled((x ?? y) as LoraFactors)).normX;
    const [normA, normB] = x === undefined ? [0, norm] : [norm, 0];
    return { ...shared, normA, normB, relativeDifference: norm === 0 ? 0 : 1, cosine: 0 };
  }
  if (x.inputs !== y.inputs || x.outputs !== y.outputs) {
    throw new PeftTrainError(
      "ADAPTER_MISMATCH",
      `${name} is [${x.outputs}, ${x.inputs}] in ${a.name} and [${y.outputs}, ${y.inputs}] in ${b.name}: they are for models of other sizes`,
    );
  }
  const { normX, normY, difference, cosine } = distance(scaled(x), scaled(y));
  return {
    ...shared,
    normA: normX,
    normB: normY,
    relativeDifference: over(difference, Math.max(normX, normY)),
    cosine,
  };
}

function compareParameters(a: StoredAdapter, b: StoredAdapter): ParameterDifference[] {
  const [x, y] = [parametersOf(a), parametersOf(b)];
  const names = [...new Set([...x.keys(), ...y.keys()])].sort(byLayer);
  return names.map((name) => {
    const [one, other] = [x.get(name), y.get(name)];
    const [normA, normB] = [one, other].map((values) => values && Math.sqrt(dot(values, values)));
    if (one === undefined || other === undefined) {
      return { name, normA, normB, relativeDifference: undefined, cosine: undefined };
    }
    if (one.length !== other.length) {
      throw new PeftTrainError(
        "ADAPTER_MISMATCH",
        `${name} has ${one.length} numbers in ${a.name} and ${other.length} in ${b.name}: they are for models of other sizes`,
      );
    }
    const away = one.map((value, i) => value - (other[i] as number));
    const norms = [normA as number, normB as number] as const;
    return {
      name,
      normA,
      normB,
      relativeDifference: over(Math.sqrt(dot(away, away)), Math.max(...norms)),
      cosine: toldCosine(over(dot(one, other), norms[0] * norms[1])),
    };
  });
}

function parametersOf({ modules, own }: StoredAdapter): Map<string, Float64Array> {
  const found = new Map<string, Float64Array>();
  for (const [name, { magnitude, bias, scale }] of modules) {
    if (magnitude !== undefined) found.set(`${name}.lora_magnitude_vector`, magnitude);
    if (bias !== undefined) {
      found.set(
        `${name}.lora_B.bias`,
        bias.map((value) => value * scale),
      );
    }
  }
  for (const [name, { values }] of own) found.set(name, Float64Array.from(values));
  return found;
}

function dot(x: Float64Array, y: Float64Array): number {
  return x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
}

function scaled(factors: LoraFactors): ReturnType<typeof concatenate> {
  return concatenate([factors], [factors.scale]);
}

/** encoder.layer.2 before encoder.layer.10. */
function byLayer(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

function over(value: number, norm: number): number {
  return norm === 0 ? 0 : value / norm;
}
