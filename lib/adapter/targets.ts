import { PeftTrainError } from "../errors.js";
import type { AdapterInit, AdapterSpec, LoraModule, ModelShape } from "../native/types.js";
import type { LoraConfig, LoraInit } from "./lora-config.js";
import { bertModules, type ModuleKind } from "./modules.js";
import { isSavedWhole, resolveOwnParameters } from "./own-parameters.js";
import { fullMatch, suffixMatch, translatePythonRegex } from "./python-regex.js";

export interface TargetModel {
  shape: ModelShape;
  hasPooler: boolean;
}

/**
 * Finds the modules that LoRA wraps, with rank and scale of each, exactly as PEFT does (tuners_utils.py,
 * check_target_module_exists; lora/model.py).
 * @param prefix What comes before BertModel's names where PEFT wrapped a module around it, such as `model.`.
 * @throws ADAPTER_UNSUPPORTED when a target cannot carry LoRA here, USAGE when nothing matches.
 */
export function resolveTargets(config: LoraConfig, model: TargetModel, prefix = ""): AdapterSpec {
  const modules = bertModules(model.shape, model.hasPooler);
  const targeted = targetPredicate(config, modules, prefix);
  const excluded = namePredicate(config.excludeModules ?? []);
  const ranks = patterns(config.rankPattern);
  const alphas = patterns(config.alphaPattern);
  const found: LoraModule[] = [];
  let excludedCount = 0;
  for (const [name, kind] of modules) {
    const fullName = prefix + name;
    if (!targeted(fullName) || isSavedWhole(fullName, config)) continue;
    if (excluded(fullName)) {
      excludedCount++;
      continue;
    }
    if (kind !== "linear") throw notLinear(name, modules);
    found.push({ name, ...ofModule(config, fullName, ranks, alphas) });
  }
  if (found.length === 0) throw nothingMatches(config, modules, excludedCount);
  const own = resolveOwnParameters(config, model, found);
  return {
    modules: found,
    dropout: config.loraDropout,
    ...nativeInit(config.initLoraWeights, found),
    ...(config.useDora && { dora: true }),
    ...(config.loraBias && { bias: true }),
    ...(own.length > 0 && { parameters: own }),
  };
}

/** Rank and scale of a module that LoRA wraps, by its full name as PEFT saw it. */
export function rankAndScale(config: LoraConfig, fullName: string): Omit<LoraModule, "name"> {
  return ofModule(config, fullName, patterns(config.rankPattern), patterns(config.alphaPattern));
}

/** What rank_pattern or alpha_pattern says of a module: the first key that matches counts, as in PEFT's get_pattern_key. */
export function patternValue(pattern: LoraConfig["rankPattern"], fullName: string): number | undefined {
  return firstMatch(patterns(pattern), fullName);
}

function ofModule(
  config: LoraConfig,
  fullName: string,
  ranks: [NamePredicate, number][],
  alphas: [NamePredicate, number][],
): Omit<LoraModule, "name"> {
  const rank = firstMatch(ranks, fullName) ?? config.r;
  const alpha = firstMatch(alphas, fullName) ?? config.loraAlpha;
  return { rank, scale: config.useRslora ? alpha / Math.sqrt(rank) : alpha / rank };
}

/** How the engine is told to begin; nothing for `true`, its default. */
function nativeInit(init: LoraInit, modules: readonly LoraModule[]): Pick<AdapterSpec, "init"> {
  // EVA brings an A of its own.
  if (init === true || init === "eva") return {};
  if (init === "orthogonal") {
    const odd = modules.find(({ rank }) => rank % 2 !== 0);
    if (odd !== undefined) {
      throw new PeftTrainError(
        "USAGE",
        `init_lora_weights=orthogonal needs even ranks; ${odd.name} has ${odd.rank}`,
      );
    }
  }
  if (init === false) return { init: { kind: "uniform" } };
  const [kind, iterations] = init.split("_niter_");
  return {
    init: {
      kind: kind as AdapterInit["kind"],
      ...(iterations !== undefined && { iterations: Number(iterations) }),
    },
  };
}

/** What is written to adapter_config.json: `all-linear` as the names that are left of it, lists sorted. */
export function storedTargets(config: LoraConfig, spec: AdapterSpec): readonly string[] | string {
  if (isAllLinear(config.targetModules)) return spec.modules.map((module) => module.name).sort();
  if (typeof config.targetModules === "string") return config.targetModules;
  return [...new Set(config.targetModules)].sort();
}

/** Keys of rank_pattern and alpha_pattern, and names of exclude_modules, that do nothing to any module. */
export function idleSettings(config: LoraConfig, model: TargetModel): { option: string; name: string }[] {
  const modules = bertModules(model.shape, model.hasPooler);
  const names = [...modules.keys()].filter(targetPredicate(config, modules, ""));
  const excluded = config.excludeModules ?? [];
  const options: [option: string, keys: readonly string[], matcher: (key: string) => NamePredicate][] = [
    [
      "exclude_modules",
      typeof excluded === "string" ? [excluded] : excluded,
      (key) => (typeof excluded === "string" ? fullMatch(key) : namePredicate([key])),
    ],
    ["lora_rank_pattern", Object.keys(config.rankPattern), suffixMatch],
    ["lora_alpha_pattern", Object.keys(config.alphaPattern), suffixMatch],
  ];
  return options.flatMap(([option, keys, matcher]) =>
    keys.filter((key) => !names.some(matcher(key))).map((name) => ({ option, name })),
  );
}

/** Names of a list that no module of the model has; PEFT passes over them as long as another matches. */
export function unmatchedTargets(config: LoraConfig, model: TargetModel): string[] {
  if (typeof config.targetModules === "string") return [];
  const modules = [...bertModules(model.shape, model.hasPooler).keys()];
  return config.targetModules.filter((target) => !modules.some(namePredicate([target])));
}

/** Only of targets that are not spelled out: names of modules say what is excluded by leaving it out. */
export function storedExclusions({
  targetModules,
  excludeModules,
}: LoraConfig): LoraConfig["excludeModules"] {
  return isAllLinear(targetModules) ? null : excludeModules;
}

type NamePredicate = (name: string) => boolean;

function targetPredicate(
  config: LoraConfig,
  modules: Map<string, ModuleKind>,
  prefix: string,
): NamePredicate {
  const { targetModules, layersToTransform, layersPattern } = config;
  if (typeof targetModules === "string" && (layersToTransform !== null || layersPattern !== null)) {
    throw new PeftTrainError(
      "USAGE",
      `layers_to_transform and layers_pattern need a list of target modules, found ${isAllLinear(targetModules) ? "all-linear" : "a regular expression"}`,
      { hint: "Say which layers in a regular expression, or give a list of names." },
    );
  }
  if (isAllLinear(targetModules)) {
    const linear = new Set(
      [...modules].filter(([, kind]) => kind === "linear").map(([name]) => prefix + name),
    );
    return (name) => linear.has(name);
  }
  const named = namePredicate(targetModules);
  if (typeof targetModules === "string") return named;
  const layers = typeof layersToTransform === "number" ? [layersToTransform] : (layersToTransform ?? []);
  if (layers.length === 0) return named;
  const indexOf = layerIndex(typeof layersPattern === "string" ? [layersPattern] : (layersPattern ?? []));
  return (name) => named(name) && layers.includes(indexOf(name));
}

/** A list matches whole names and last parts, a string whole names as a regular expression. */
function namePredicate(names: readonly string[] | string): NamePredicate {
  if (typeof names === "string") return fullMatch(names);
  return (name) => names.some((target) => name === target || name.endsWith(`.${target}`));
}

/** Number of the layer that a name lies in, -1 where there is none. */
function layerIndex(layersPattern: readonly string[]): (name: string) => number {
  const sources =
    layersPattern.length === 0
      ? [".*?\\.[^.]*\\.(\\d+)\\."]
      : layersPattern.map((pattern) => `(?:^|.*?\\.)(?:${translatePythonRegex(pattern)})\\.(\\d+)\\.`);
  const regexes = sources.map((source) => new RegExp(`^${source}`));
  return (name) => {
    for (const regex of regexes) {
      const match = regex.exec(name);
      if (match !== null) return Number(match.at(-1));
    }
    return -1;
  };
}

function patterns(values: Readonly<Record<string, number>>): [NamePredicate, number][] {
  return Object.entries(values).map(([key, value]) => [suffixMatch(key), value]);
}

function firstMatch(candidates: [NamePredicate, number][], name: string): number | undefined {
  return candidates.find(([matches]) => matches(name))?.[1];
}

function isAllLinear(targets: readonly string[] | string): boolean {
  return typeof targets === "string" && targets.toLowerCase() === "all-linear";
}

function candidates(modules: Map<string, ModuleKind>): string {
  const names = [...modules].filter(([, kind]) => kind === "linear").map(([name]) => name);
  const short = new Set(names.map((name) => name.replace(/^encoder\.layer\.\d+\./, "")));
  const last = names.filter((name) => name.startsWith("encoder.layer.")).at(-1) as string;
  return `Candidates are ${[...short].join(", ")}, whole names such as ${last}, or all-linear.`;
}

function notLinear(name: string, modules: Map<string, ModuleKind>): PeftTrainError {
  return new PeftTrainError("ADAPTER_UNSUPPORTED", `LoRA on "${name}": it is not a linear layer`, {
    hint: candidates(modules),
  });
}

function nothingMatches(
  config: LoraConfig,
  modules: Map<string, ModuleKind>,
  excludedCount: number,
): PeftTrainError {
  const targets =
    typeof config.targetModules === "string" ? config.targetModules : config.targetModules.join(",");
  const message =
    excludedCount > 0
      ? `target modules ${targets}: all ${excludedCount} modules that match are excluded`
      : `target modules ${targets}: no module of the model matches`;
  return new PeftTrainError("USAGE", message, { hint: candidates(modules) });
}
