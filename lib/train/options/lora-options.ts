import { DEFAULT_LORA, type LoraConfig, splitsBase } from "../../adapter/lora-config.js";
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
    useDora: options.useDora,
    loraBias: options.loraBias,
    bias: options.bias,
    modulesToSave: options.modulesToSave,
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
  checkBeginning(options, label);
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

/** What does not go with how the adapter begins, as in PEFT where that says so. */
function checkBeginning(options: ResolvedTrainOptions, label: Label): void {
  const { initLoraWeights: init, evaRho, loraBias, useDora, loadIn4bit, loadIn8bit, compute } = options;
  const begins = `${label("init_lora_weights")}=${init}`;
  if (loraBias && (typeof init !== "boolean" || useDora)) {
    const other = useDora ? label("use_dora") : begins;
    throw new PeftTrainError("USAGE", `${label("lora_bias")} does not go with ${other}`);
  }
  if (useDora && splitsBase(init)) {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${label("use_dora")} with ${begins} is not available in this version`,
      { hint: "Leave one of them out." },
    );
  }
  if (evaRho !== null && init !== "eva") {
    throw new PeftTrainError("USAGE", `${label("eva_rho")} is for ${label("init_lora_weights")}=eva`, {
      hint: "Leave it out.",
    });
  }
  if (init === "loftq" && !loadIn4bit && !loadIn8bit && compute !== "int8") {
    throw new PeftTrainError("USAGE", `${begins} needs weights that are quantised while they are loaded`, {
      hint: `Give ${label("load_in_4bit")} with it: it makes up for what that loses.`,
    });
  }
}
