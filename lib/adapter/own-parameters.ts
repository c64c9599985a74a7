import type { LoraModule, OwnParameter } from "../native/types.js";
import type { LoraConfig } from "./lora-config.js";
import { bertModules, parametersOf } from "./modules.js";
import type { TargetModel } from "./targets.js";

const PREFIX = "base_model.model.";

/**
 * Parameters of the base model of which an adapter has its own, by `modules_to_save` and `bias`, with the key that PEFT gives each in
 * its file (other.py, _set_trainable; tuners_utils.py, _mark_only_adapters_as_trainable; save_and_load.py).
 */
export function resolveOwnParameters(
  { bias, modulesToSave }: LoraConfig,
  model: TargetModel,
  adapted: readonly LoraModule[],
): OwnParameter[] {
  const modules = [...bertModules(model.shape, model.hasPooler).keys()];
  const saved = modules.filter((name) => modulesToSave?.some((end) => name.endsWith(end)));
  const isSaved = (name: string): boolean =>
    saved.some((module) => name === module || name.startsWith(`${module}.`));
  const isAdapted = new Set(adapted.map(({ name }) => name));
  const own: OwnParameter[] = [];
  for (const module of modules) {
    for (const parameter of parametersOf(module)) {
      const name = `${module}.${parameter}`;
      if (isSaved(module)) own.push({ name, key: PREFIX + name });
      else if (parameter !== "bias" || bias === "none") continue;
      else if (isAdapted.has(module)) own.push({ name, key: `${PREFIX}${module}.base_layer.bias` });
      else if (bias === "all") own.push({ name, key: PREFIX + name });
    }
  }
  return own;
}

/**
 * The parameter of BertModel of which a tensor of an adapter's file is the adapter's own; undefined for a tensor that is none.
 * @param key Without the prefix that PEFT puts before BertModel's names.
 */
export function ownParameterOf(key: string, { bias, modulesToSave }: LoraConfig): string | undefined {
  const [, module, parameter] = /^(.+)\.(weight|bias)$/.exec(key) ?? [];
  if (module === undefined || module.includes(".lora_")) return undefined;
  const wrapped = /^(.+)\.base_layer$/.exec(module)?.[1];
  if (wrapped !== undefined) {
    return parameter === "bias" && bias !== "none" ? `${wrapped}.bias` : undefined;
  }
  const names = module.split(".").map((_, i, parts) => parts.slice(0, i + 1).join("."));
  const saved = names.some((name) => modulesToSave?.some((end) => name.endsWith(end)));
  return saved || (parameter === "bias" && bias === "all") ? key : undefined;
}

/** With bias "all" PEFT writes the biases of modules_to_save once more under the names that its wrapper has for them. */
export function isWrappedTwin(key: string): boolean {
  return /\.(original_module|modules_to_save)\.bias$/.test(key);
}

/** Names of modules_to_save that no module of the model ends with; PEFT passes over them. */
export function unmatchedModulesToSave({ modulesToSave }: LoraConfig, model: TargetModel): string[] {
  const modules = [...bertModules(model.shape, model.hasPooler).keys()];
  return (modulesToSave ?? []).filter((end) => !modules.some((name) => name.endsWith(end)));
}

/** Whether a module is left out of LoRA since its own copy trains instead. */
export function isSavedWhole(name: string, { modulesToSave }: LoraConfig): boolean {
  return (modulesToSave ?? []).some((module) => `.${name}.`.includes(`.${module}.`));
}
