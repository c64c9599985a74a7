import { formatAdapterConfig } from "../adapter/config.js";
import type { LoraConfig } from "../adapter/lora-config.js";
import { unmatchedModulesToSave } from "../adapter/own-parameters.js";
import { idleSettings, resolveTargets, unmatchedTargets } from "../adapter/targets.js";
import { PeftTrainError } from "../errors.js";
import type { ModelFolder } from "../model/folder.js";
import type { AdapterSpec } from "../native/types.js";
import { loraConfig } from "./options/lora-options.js";
import type { ResolvedTrainOptions } from "./options/options.js";

export interface PlannedAdapter {
  lora: LoraConfig;
  spec: AdapterSpec;
  /** Text of adapter_config.json. */
  config: string;
}

/** The adapter that a run trains. @throws USAGE where the options do not fit the model */
export function planAdapter(options: ResolvedTrainOptions, model: ModelFolder): PlannedAdapter {
  checkRanks(options, model);
  const lora = loraConfig(options);
  const spec = resolveOwnTargets(lora, model);
  if (spec.modules.every(({ name }) => name === "pooler.dense")) {
    throw new PeftTrainError(
      "USAGE",
      "--lora_target_modules names pooler.dense alone, which mean and cls pooling never reach: nothing would be trained",
      { hint: "Name query,key,value or other layers of the encoder." },
    );
  }
  return { lora, spec, config: formatAdapterConfig(lora, spec, model.name, model.hub?.revision) };
}

/** What was asked of it that comes to nothing. */
export function adapterWarnings({ lora }: PlannedAdapter, model: ModelFolder): string[] {
  return [
    ...unmatchedModulesToSave(lora, model).map(
      (name) => `--modules_to_save: no module of ${model.name} ends with ${name}`,
    ),
    ...unmatchedTargets(lora, model).map(
      (name) => `--lora_target_modules: no module of ${model.name} is called ${name}`,
    ),
    ...idleSettings(lora, model).map(
      ({ option, name }) => `--${option}: ${name} names none of the modules that get an adapter`,
    ),
  ];
}

/** @throws USAGE for a rank beyond the model's width, or a layer that it has not. */
function checkRanks(options: ResolvedTrainOptions, { shape, name }: ModelFolder): void {
  const pattern = Object.entries(options.loraRankPattern ?? {});
  const ranks = [
    ["--lora_r", options.loraR],
    ...pattern.map(([key, rank]) => [`--lora_rank_pattern: ${key}`, rank] as const),
  ] as const;
  const wide = ranks.find(([, rank]) => rank > shape.hiddenSize);
  if (wide !== undefined) {
    throw new PeftTrainError(
      "USAGE",
      `${wide[0]}=${wide[1]} is larger than the model's hidden size, ${shape.hiddenSize}`,
      { hint: "Ranks of 4 to 64 are usual." },
    );
  }
  const beyond = options.layersToTransform?.find((layer) => layer >= shape.numLayers);
  if (beyond !== undefined) {
    throw new PeftTrainError(
      "USAGE",
      `--layers_to_transform=${options.layersToTransform}: ${name} has no layer ${beyond}; its layers are 0 to ${shape.numLayers - 1}`,
    );
  }
}

/** What an adapter folder may not ask for is, on a command line, a wrong flag like any other. */
function resolveOwnTargets(lora: LoraConfig, model: ModelFolder): AdapterSpec {
  try {
    return resolveTargets(lora, model);
  } catch (cause) {
    if (!(cause instanceof PeftTrainError) || cause.code !== "ADAPTER_UNSUPPORTED") throw cause;
    const { message, hint } = cause;
    throw new PeftTrainError("USAGE", `--lora_target_modules: ${message}`, { ...(hint && { hint }), cause });
  }
}
