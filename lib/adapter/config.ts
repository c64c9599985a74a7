import { PeftTrainError } from "../errors.js";
import { isObject, type JsonObject } from "../model/json-file.js";
import type { AdapterSpec } from "../native/types.js";
import { type LoftqBase, parseLoftq } from "./loftq.js";
import { type LoraBias, type LoraConfig, type LoraInit, splitsBase } from "./lora-config.js";
import { storedExclusions, storedTargets } from "./targets.js";
import { refuseVariants } from "./variants.js";

/** A parsed adapter_config.json. */
export interface AdapterConfig {
  lora: LoraConfig;
  baseModel: string | null;
  /** Of an adapter that runs over what PEFT's LoftQ makes of its base. */
  loftq: LoftqBase | undefined;
  /** The file as read, unknown keys included. */
  raw: JsonObject;
  /** Keys that no PEFT release up to 0.21 writes; they are ignored, and worth a word to the user. */
  unknownKeys: string[];
}

/**
 * Reads what PEFT's LoraConfig.save_pretrained writes; absent keys take PEFT's defaults (alpha 8, not the article's 16).
 * @param file Path of the adapter_config.json, for messages.
 * @throws ADAPTER_UNSUPPORTED naming the option that would change the maths, MODEL_CORRUPT for a value of a wrong type.
 */
export function parseAdapterConfig(raw: JsonObject, file: string): AdapterConfig {
  const unknownKeys = refuseVariants(raw, file);
  const fail = (key: string, expected: string): PeftTrainError =>
    new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected ${key} to be ${expected}, found ${JSON.stringify(raw[key])}`,
    );
  const number = (
    key: string,
    fallback: number,
    ok: (value: number) => boolean,
    expected: string,
  ): number => {
    const value = raw[key] ?? fallback;
    if (typeof value !== "number" || !ok(value)) throw fail(key, expected);
    return value;
  };
  const names = (key: string): readonly string[] | string | null => {
    const value = raw[key] ?? null;
    if (value === null || typeof value === "string") return value;
    if (Array.isArray(value) && value.every((name) => typeof name === "string")) return value;
    throw fail(key, "a string or a list of strings");
  };
  const pattern = (key: string, ok: (value: number) => boolean): Record<string, number> => {
    const value = raw[key] ?? {};
    if (!isObject(value) || !Object.values(value).every((v) => typeof v === "number" && ok(v))) {
      throw fail(key, "an object of numbers above 0");
    }
    return value as Record<string, number>;
  };
  const modulesToSave = (): readonly string[] | null => {
    const value = names("modules_to_save");
    if (typeof value === "string") throw fail("modules_to_save", "a list of strings");
    return value === null || value.length === 0 ? null : value;
  };
  const layers = raw.layers_to_transform ?? null;
  if (!(layers === null || isLayer(layers) || (Array.isArray(layers) && layers.every(isLayer)))) {
    throw fail("layers_to_transform", "a layer number or a list of them");
  }
  const flag = (key: string): boolean => {
    const value = raw[key] ?? false;
    if (typeof value !== "boolean") throw fail(key, "true or false");
    return value;
  };
  const lora: LoraConfig = {
    r: number("r", 8, isRank, "a whole number above 0"),
    loraAlpha: number("lora_alpha", 8, isPositive, "a number above 0"),
    loraDropout: number("lora_dropout", 0, (rate) => rate >= 0 && rate < 1, "at least 0 and below 1"),
    // PEFT's own default for BERT (TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING).
    targetModules: names("target_modules") ?? ["query", "value"],
    excludeModules: names("exclude_modules"),
    rankPattern: pattern("rank_pattern", isRank),
    alphaPattern: pattern("alpha_pattern", isPositive),
    useRslora: flag("use_rslora"),
    layersToTransform: layers as LoraConfig["layersToTransform"],
    layersPattern: names("layers_pattern"),
    initLoraWeights: storedBeginning(raw.init_lora_weights),
    useDora: flag("use_dora"),
    loraBias: flag("lora_bias"),
    bias: (raw.bias ?? "none") as LoraBias, // one of these, or it would have been refused
    modulesToSave: modulesToSave(),
  };
  const baseModel = raw.base_model_name_or_path ?? null;
  const named = typeof baseModel === "string" ? baseModel : null;
  return { lora, baseModel: named, loftq: parseLoftq(raw, file), raw, unknownKeys };
}

/**
 * Text of an adapter_config.json: the keys of PEFT 0.13, which every later release reads too, sorted, two spaces of
 * indent and no newline at the end, as PEFT writes it. The same options give the same bytes. Patterns keep their order,
 * for the first that matches counts.
 */
export function formatAdapterConfig(
  trained: LoraConfig,
  spec: AdapterSpec,
  baseModel: string | null,
  revision: string | null = null,
  loftq?: LoftqBase,
): string {
  const config = asPlainLora(trained);
  const excluded = storedExclusions(config);
  const fields: JsonObject = {
    alpha_pattern: config.alphaPattern,
    auto_mapping: null,
    base_model_name_or_path: baseModel,
    bias: config.bias,
    // Only since PEFT 0.14, so left out where it says nothing.
    ...(excluded === null ? {} : { exclude_modules: excluded }),
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: loftq === undefined ? storedInit(config.initLoraWeights) : "loftq",
    layer_replication: null,
    layers_pattern: config.layersPattern,
    layers_to_transform: config.layersToTransform,
    loftq_config: loftq === undefined ? {} : { loftq_bits: loftq.bits, loftq_iter: loftq.iterations },
    lora_alpha: config.loraAlpha,
    // Only since PEFT 0.14.
    ...(config.loraBias ? { lora_bias: true } : {}),
    lora_dropout: config.loraDropout,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: config.modulesToSave === null ? null : [...config.modulesToSave].sort(),
    peft_type: "LORA",
    r: config.r,
    rank_pattern: config.rankPattern,
    revision,
    target_modules: storedTargets(config, spec),
    task_type: "FEATURE_EXTRACTION",
    use_dora: config.useDora,
    use_rslora: config.useRslora,
  };
  return JSON.stringify(fields, null, 2);
}

/** PEFT begins so before it reads the weights: what it draws for nothing, or needs a GPU for, is written as plain. */
function storedInit(init: LoraInit): LoraInit {
  return typeof init === "boolean" || init === "gaussian" ? init : true;
}

/** What a file holds has begun; only what was left of the base has still to be found again, as PEFT does. */
function storedBeginning(init: unknown): LoraInit {
  const name = typeof init === "string" ? init.toLowerCase() : init;
  return name === "pissa" || name === "olora" ? name : true;
}

/**
 * An adapter over what it left of the base, W - s B0 A0, as plain LoRA over W itself: A and A0, B and -B0 side by side,
 * with twice the rank and the same scale, as PEFT's path_initial_model_for_weight_conversion.
 */
export function asPlainLora(config: LoraConfig): LoraConfig {
  if (!splitsBase(config.initLoraWeights)) return config;
  const alpha = config.useRslora ? Math.SQRT2 : 2;
  const times = (values: Readonly<Record<string, number>>, factor: number): Record<string, number> =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [key, value * factor]));
  return {
    ...config,
    r: 2 * config.r,
    loraAlpha: alpha * config.loraAlpha,
    rankPattern: times(config.rankPattern, 2),
    alphaPattern: times(config.alphaPattern, alpha),
    initLoraWeights: true,
  };
}

function isRank(value: number): boolean {
  return Number.isInteger(value) && value > 0 && value <= 65536;
}

function isPositive(value: number): boolean {
  return Number.isFinite(value) && value > 0;
}

function isLayer(value: unknown): boolean {
  return typeof value === "number" && Number.isInteger(value) && value >= 0;
}
