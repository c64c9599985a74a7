import { DEFAULT_LORA, type LoraConfig } from "../../adapter/lora-config.js";
import { suffixMatch } from "../../adapter/python-regex.js";
import { PeftTrainError } from "../../errors.js";
import type { Label } from "./option-value.js";
import type { ResolvedTrainOptions } from "./options.js";

/** What the LoRA options mean to the adapter. */
export function loraConfig(options: ResolvedTrainOptions): LoraConfig {
  return {
    ...DEFAULT_LORA,
    r: options.loraR,
    loraAlpha: options.loraAlpha,
    loraDropout: options.loraDropout,
    targetModules: options.loraTargetModules,
    excludeModules: options.excludeModules,
    rankPattern: options.loraRankPattern ?? {},
    alphaPattern: options.loraAlphaPattern ?? {},
    useRslora: options.useRslora,
    layersToTransform: options.layersToTransform,
    layersPattern: options.layersPattern,
    initLoraWeights: options.initLoraWeights,
  };
}

/**
 * Holds the LoRA options against each other.
 * @throws USAGE
 */
export function checkLoraOptions(options: ResolvedTrainOptions, label: Label): void {
  const { layersToTransform, layersPattern, loraTargetModules } = options;
  if (layersPattern !== null && layersToTransform === null) {
    throw new PeftTrainError("USAGE", `${label("layers_pattern")} needs ${label("layers_to_transform")}`);
  }
  if (layersToTransform !== null && typeof loraTargetModules === "string") {
    throw new PeftTrainError(
      "USAGE",
      `${label("layers_to_transform")} needs names in ${label("lora_target_modules")}, found ${loraTargetModules}`,
      { hint: "Give a list of names, or say which layers in a regular expression." },
    );
  }
  for (const name of ["lora_rank_pattern", "lora_alpha_pattern"] as const) {
    const pattern = name === "lora_rank_pattern" ? options.loraRankPattern : options.loraAlphaPattern;
    // Keys are regular expressions: one that cannot be read is a wrong flag, and not a wrong adapter.
    for (const key of Object.keys(pattern ?? {})) requireExpression(key, label(name));
  }
}

function requireExpression(key: string, flag: string): void {
  try {
    suffixMatch(key);
  } catch (cause) {
    if (!(cause instanceof PeftTrainError)) throw cause;
    throw new PeftTrainError("USAGE", `${flag}: ${cause.message}`, {
      ...(cause.hint !== undefined && { hint: cause.hint }),
      cause,
    });
  }
}
