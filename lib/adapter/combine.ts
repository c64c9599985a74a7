import { AtomicFolder } from "../data/atomic-folder.js";
import { PeftTrainError } from "../errors.js";
import type { JsonObject } from "../model/json-file.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { VERSION } from "../version.js";
import {
  type CombinationMethod,
  type CombinedModule,
  type CombineSettings,
  combineModule,
} from "./combine-factors.js";
import { type CombineOptions, combineSettings, soleSource } from "./combine-options.js";
import { type CombinedModuleNorms, type CombinedNorms, combinedNorms } from "./combined-norms.js";
import { formatAdapterConfig } from "./config.js";
import type { LoraFactors } from "./factors.js";
import { DEFAULT_LORA, type LoraConfig } from "./lora-config.js";
import { type AdapterRecord, requireSameBase } from "./record.js";
import { readStoredAdapter, type StoredAdapter } from "./stored-adapter.js";
import { requireSummable, summedBias } from "./summable.js";
import { writeFactors } from "./write-factors.js";

/** One of the adapters that are combined. */
export interface WeightedAdapter {
  /** Folder of an adapter, of this package or of PEFT, or its name on the Hub. */
  adapter: string;
  /** Negative takes its effect away. Default: 1. */
  weight?: number | undefined;
}

const WEIGHTED_ADAPTER: OptionNames<WeightedAdapter> = { adapter: true, weight: true };

/** What a combination has written, and how near it is to the weighted sum. */
export interface CombineResult extends CombinedNorms {
  /** Absolute. */
  output: string;
  /** How it was done: the option's, or `linear` in its place for a single adapter. */
  method: CombinationMethod;
  /** One an adapter, in their order. */
  weights: number[];
  /** Largest rank of a module. */
  rank: number;
  /** Numbers in A and B of all modules. */
  parameters: number;
  /** By module, in the order in which the adapters name them. */
  modules: CombinedModuleNorms[];
  /** What is worth a word, such as bases or prefixes that differ. */
  warnings: string[];
}

/**
 * Writes one adapter that does what several do together, each with its weight. The base model is not needed.
 * @param output A folder that is not there, or empty; it appears whole or not at all.
 * @throws USAGE, ADAPTER_MISMATCH (other bases, other shapes, other ranks), OUTPUT_EXISTS, OUTPUT_UNWRITABLE, ABORTED, and
 * as for reading an adapter.
 */
export async function combineAdapters(
  adapters: readonly (string | WeightedAdapter)[],
  output: string,
  options: CombineOptions = {},
): Promise<CombineResult> {
  const given = weighted(adapters);
  const weights = given.map(({ weight }) => weight ?? 1);
  const settings = soleSource(combineSettings(options), given.length);
  requireWeighted(given, weights);
  const sources: StoredAdapter[] = [];
  for (const { adapter } of given) {
    sources.push(
      await readStoredAdapter(adapter, { signal: options.signal, onProgress: options.onDownload }),
    );
  }
  requireSummable(sources, settings.method);
  const { record, warnings } = commonRecord(sources, weights, settings);
  await using folder = await AtomicFolder.create(output);
  const names = [...new Set(sources.flatMap((source) => [...source.modules.keys()]))];
  const combined = new Map<string, CombinedModule>();
  const modules = new Map<string, LoraFactors>();
  const biased = sources.some(({ config }) => config.lora.loraBias);
  for (const name of names) {
    const terms = having(name, sources, weights);
    const one = combineModule(name, terms, settings);
    combined.set(name, one);
    const bias = biased && summedBias(terms, one.factors.outputs);
    modules.set(name, { ...one.factors, scale: 1, ...(bias && { bias }) });
    options.onProgress?.(combined.size, names.length);
    await new Promise(setImmediate); // Ctrl-C gets its turn
    if (options.signal?.aborted) throw new PeftTrainError("ABORTED", `stopped; ${output} was not written`);
  }
  await writeFactors(folder.draft, {
    modules,
    own: new Map(),
    config: combinedConfig(modules, sources[0] as StoredAdapter),
    record,
    dtype: "float32",
    layout: "plain",
    tokenizer: (sources[0] as StoredAdapter).folder,
  });
  await folder.commit();
  return { output: folder.path, method: settings.method, weights, warnings, ...summary(combined) };
}

function weighted(adapters: readonly (string | WeightedAdapter)[]): WeightedAdapter[] {
  if (!Array.isArray(adapters)) {
    throw new PeftTrainError("USAGE", `adapters: expected an array, found ${typeof adapters}`);
  }
  return adapters.map((one, i) => {
    if (typeof one === "string") return { adapter: one };
    requireKnownOptions(one, WEIGHTED_ADAPTER, `adapter ${i}`);
    return one;
  });
}

function requireWeighted(adapters: readonly { adapter: unknown }[], weights: readonly unknown[]): void {
  if (adapters.length === 0) throw new PeftTrainError("USAGE", "expected the folder of at least one adapter");
  for (const [i, { adapter }] of adapters.entries()) {
    if (typeof adapter !== "string" || adapter === "") {
      throw new PeftTrainError(
        "USAGE",
        `adapter ${i}: expected the path of a folder, found ${JSON.stringify(adapter)}`,
      );
    }
    const weight = weights[i];
    if (typeof weight === "number" && Number.isFinite(weight)) continue;
    throw new PeftTrainError("USAGE", `weight of ${adapter}: expected a number, found ${weight}`);
  }
}

function having(
  name: string,
  sources: readonly StoredAdapter[],
  weights: readonly number[],
): Parameters<typeof combineModule>[1] {
  const found = sources.flatMap((source, index) => {
    const factors = source.modules.get(name);
    return factors === undefined ? [] : [{ index, weight: weights[index] as number, factors }];
  });
  const shapes = found.map(({ factors: { inputs, outputs } }) => `[${outputs}, ${inputs}]`);
  const other = shapes.findIndex((shape) => shape !== shapes[0]);
  if (other > 0) {
    const [a, b] = [0, other].map((i) => sources[(found[i] as { index: number }).index]?.name);
    throw new PeftTrainError(
      "ADAPTER_MISMATCH",
      `${a} and ${b} are for models of other sizes: ${name} is ${shapes[0]} in one and ${shapes[other]} in the other`,
    );
  }
  return found;
}

/**
 * What the combined adapter's peft_train.json says: that of the first adapter that has one.
 * @throws ADAPTER_MISMATCH for adapters of other bases, or that pool otherwise.
 */
function commonRecord(
  sources: readonly StoredAdapter[],
  weights: readonly number[],
  settings: CombineSettings,
): { record: AdapterRecord | undefined; warnings: string[] } {
  const warnings: string[] = [];
  const first = sources.find(({ record }) => record !== undefined);
  const bases = [...new Set(sources.flatMap(({ config }) => config.baseModel ?? []))];
  if (sources.some(({ record }) => record === undefined) && bases.length > 1) {
    warnings.push(
      `the adapters name the base models ${bases.join(" and ")}; whether these are one cannot be told`,
    );
  }
  if (first?.record === undefined) return { record: undefined, warnings };
  for (const { name, record } of sources) {
    if (record === undefined || record === first.record) continue;
    requireSameBase(first.record, record.base, first.name, record.baseModel);
    if (record.pooling !== first.record.pooling) {
      throw new PeftTrainError(
        "ADAPTER_MISMATCH",
        `${first.name} was trained with ${first.record.pooling} pooling, ${name} with ${record.pooling}`,
      );
    }
    for (const key of ["question1Prefix", "question2Prefix", "maxLength"] as const) {
      if (record[key] === first.record[key]) continue;
      const [ours, theirs] = [JSON.stringify(first.record[key]), JSON.stringify(record[key])];
      warnings.push(
        `${first.name} was trained with ${key} ${ours}, ${name} with ${theirs}; ${ours} is written`,
      );
    }
  }
  const { method, density, majoritySign, svdRank, svdClamp, seed } = settings;
  const training: JsonObject = {
    combined_from: sources.map(({ name }, i) => ({ adapter: name, weight: weights[i] })),
    combination: {
      method,
      density,
      majority_sign_method: majoritySign,
      svd_rank: svdRank ?? null,
      svd_clamp: svdClamp ?? null,
      seed,
    },
  };
  const record = { ...first.record, version: VERSION, threshold: null, seed, step: 0, epoch: 0, training };
  return { record, warnings };
}

/** Every module by its whole name, with a scale of 1. */
function combinedConfig(modules: ReadonlyMap<string, LoraFactors>, first: StoredAdapter): string {
  const r = Math.max(...[...modules.values()].map(({ rank }) => rank));
  const others = [...modules].filter(([, { rank }]) => rank !== r);
  const ranks = Object.fromEntries(others.map(([name, { rank }]) => [name, rank]));
  const lora: LoraConfig = {
    ...DEFAULT_LORA,
    r,
    loraAlpha: r,
    targetModules: [...modules.keys()],
    rankPattern: ranks,
    alphaPattern: ranks,
    loraBias: [...modules.values()].some(({ bias }) => bias !== undefined),
  };
  const spec = {
    modules: [...modules].map(([name, { rank }]) => ({ name, rank, scale: 1 })),
    dropout: 0,
  };
  return formatAdapterConfig(lora, spec, first.config.baseModel ?? first.record?.baseModel ?? null);
}

function summary(
  combined: ReadonlyMap<string, CombinedModule>,
): CombinedNorms & Pick<CombineResult, "rank" | "parameters" | "modules"> {
  const all = [...combined.values()];
  return {
    ...combinedNorms(all),
    rank: Math.max(...all.map(({ factors }) => factors.rank)),
    parameters: all.reduce((sum, { factors: { a, b } }) => sum + a.length + b.length, 0),
    modules: [...combined].map(([name, one]) => ({
      name,
      rank: one.factors.rank,
      ...combinedNorms([one]),
    })),
  };
}
