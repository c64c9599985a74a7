import type { LoraConfig } from "./lora-config.js";
import type { StoredAdapter } from "./stored-adapter.js";
import { patternValue } from "./targets.js";

/** A setting that two adapters have otherwise. */
export type SettingDifference = [name: string, a: unknown, b: unknown];

type Pattern = LoraConfig["rankPattern"];
const PATTERNS: readonly string[] = ["rankPattern", "alphaPattern"] satisfies (keyof LoraConfig)[];

/**
 * In what the configurations of two adapters differ. The order of a list says nothing, for PEFT makes sets of them; that of patterns
 * does where two of them match one module.
 */
export function settingDifferences(a: StoredAdapter, b: StoredAdapter): SettingDifference[] {
  const [x, y] = [settingsOf(a), settingsOf(b)];
  const differences = [...new Set([...x.keys(), ...y.keys()])]
    .map((name): SettingDifference => [name, x.get(name) ?? null, y.get(name) ?? null])
    .filter(([, one, other]) => JSON.stringify(one) !== JSON.stringify(other));
  return differences.filter(
    ([name, one, other]) =>
      !PATTERNS.includes(name) || !isSameInEffect(one as Pattern, other as Pattern, [a, b]),
  );
}

function settingsOf({ config, record }: StoredAdapter): Map<string, unknown> {
  const { lora, baseModel, loftq } = config;
  const texts = record && {
    prefix: record.question1Prefix,
    prefix2: record.question2Prefix,
    pooling: record.pooling,
    maxLength: record.maxLength,
    baseWeights: record.base.weights,
  };
  return new Map(
    Object.entries({
      ...lora,
      targetModules: sorted(lora.targetModules),
      excludeModules: sorted(lora.excludeModules),
      layersToTransform: sorted(lora.layersToTransform),
      modulesToSave: sorted(lora.modulesToSave),
      baseModel,
      loftq,
      ...texts,
    }),
  );
}

function sorted(setting: unknown): unknown {
  if (!Array.isArray(setting)) return setting;
  return [...new Set(setting)].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
}

/** Whether two patterns have the same keys and values, in an order that gives every module of the adapters the same. */
function isSameInEffect(one: Pattern, other: Pattern, adapters: readonly StoredAdapter[]): boolean {
  const keys = Object.keys(one);
  if (keys.length !== Object.keys(other).length || keys.some((key) => one[key] !== other[key])) return false;
  return adapters.every(({ modules, layout }) =>
    [...modules.keys()].every((module) => {
      const fullName = layout === "wrapped" ? `model.${module}` : module;
      return patternValue(one, fullName) === patternValue(other, fullName);
    }),
  );
}
