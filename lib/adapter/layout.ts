import { formatAdapterConfig } from "./config.js";
import type { LoraConfig } from "./lora-config.js";
import type { KeyLayout, StoredAdapter } from "./stored-adapter.js";

/** Text of an adapter_config.json: the same settings; where names change, every module by its new name, for patterns may have meant the old ones. */
export function configInLayout(adapter: StoredAdapter, layout: KeyLayout): string {
  const { config, record, modules } = adapter;
  const prefix = layout === "wrapped" ? "model." : "";
  const spec = {
    modules: [...modules].map(([name, { rank, scale }]) => ({ name: prefix + name, rank, scale })),
    dropout: config.lora.loraDropout,
  };
  const base = config.baseModel ?? record?.baseModel ?? null;
  const revision = typeof config.raw.revision === "string" ? config.raw.revision : null;
  const format = (lora: LoraConfig): string => formatAdapterConfig(lora, spec, base, revision, config.loftq);
  if (layout === adapter.layout) return format(config.lora);
  const { r, loraAlpha, useRslora } = config.lora;
  const alphaOf = (rank: number, scale: number): number => scale * (useRslora ? Math.sqrt(rank) : rank);
  const differing = (
    value: (one: { rank: number; scale: number }) => number,
    usual: number,
  ): Record<string, number> =>
    Object.fromEntries(
      spec.modules
        .map((one): [string, number] => [one.name, value(one)])
        .filter(([, found]) => found !== usual),
    );
  const lora: LoraConfig = {
    ...config.lora,
    targetModules: spec.modules.map(({ name }) => name),
    excludeModules: null,
    layersToTransform: null,
    layersPattern: null,
    rankPattern: differing(({ rank }) => rank, r),
    alphaPattern: differing(({ rank, scale }) => exact(alphaOf(rank, scale)), loraAlpha),
    // Ends of names, which a name without the wrapper's prefix is still.
    modulesToSave: config.lora.modulesToSave?.map((end) => end.replace(/^model\./, "")) ?? null,
  };
  return format(lora);
}

/** alpha was divided and multiplied by the same number: off by its last bit at most. */
function exact(alpha: number): number {
  return Number(alpha.toPrecision(12));
}
