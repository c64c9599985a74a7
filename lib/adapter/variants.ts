import { PeftTrainError } from "../errors.js";
import { isObject, type JsonObject } from "../model/json-file.js";
import { LORA_BIASES } from "./lora-config.js";

/** Keys whose value, unless it is one of these or empty, makes the adapter compute something else than plain LoRA. */
const VARIANTS: Record<string, readonly unknown[]> = {
  alora_invocation_tokens: [],
  arrow_config: [],
  bias: LORA_BIASES,
  fan_in_fan_out: [],
  kasa_config: [],
  layer_replication: [],
  megatron_config: [],
  monteclora_config: [],
  target_parameters: [],
  trainable_token_indices: [],
  use_bdlora: [],
  use_qalora: [],
  velora_config: [],
};

/** Keys that PEFT writes and that matter to nobody who only runs the adapter, or are read elsewhere. */
const KNOWN = new Set([
  "alpha_pattern",
  "auto_mapping",
  "base_model_name_or_path",
  "corda_config",
  "ensure_weight_tying",
  "eva_config",
  "exclude_modules",
  "inference_mode",
  "init_lora_weights",
  "layers_pattern",
  "layers_to_transform",
  "loftq_config",
  "lora_alpha",
  "lora_bias",
  "lora_dropout",
  "lora_ga_config",
  "megatron_core",
  "modules_to_save",
  "peft_type",
  "peft_version",
  "qalora_group_size",
  "r",
  "rank_pattern",
  "revision",
  "runtime_config",
  "target_modules",
  "task_type",
  "use_dora",
  "use_rslora",
]);

/** Initialisations that leave the base weights alone, or leave something of them that can be found again. */
const KNOWN_INITS: readonly unknown[] = [
  undefined,
  null,
  true,
  false,
  "gaussian",
  "eva",
  "loftq",
  "orthogonal",
  "mica",
  "pissa",
  "olora",
];

/**
 * Refuses, by name, what this engine would compute wrongly.
 * @returns Keys that it does not know and that are set to something.
 * @throws ADAPTER_UNSUPPORTED
 */
export function refuseVariants(config: JsonObject, file: string): string[] {
  if (config.peft_type !== "LORA") {
    throw new PeftTrainError(
      "ADAPTER_UNSUPPORTED",
      `${file}: expected peft_type "LORA", found ${JSON.stringify(config.peft_type ?? null)}`,
      { hint: "Only LoRA adapters are supported." },
    );
  }
  for (const [key, allowed] of Object.entries(VARIANTS)) {
    const value = config[key];
    if (isEmpty(value) || allowed.includes(value)) continue;
    throw new PeftTrainError(
      "ADAPTER_UNSUPPORTED",
      `${file}: ${key} is ${JSON.stringify(value)}, which this version does not support`,
      {
        hint: "LoRA, rsLoRA and DoRA on linear layers are supported, with biases and modules_to_save.",
      },
    );
  }
  refuseInit(config, file);
  return Object.keys(config).filter((key) => !KNOWN.has(key) && !(key in VARIANTS) && !isEmpty(config[key]));
}

/** Names an initialisation that cannot be found again, or not beside DoRA. */
function refuseInit({ init_lora_weights: init, use_dora }: JsonObject, file: string): void {
  const name = typeof init === "string" ? init.toLowerCase() : init;
  const found = `${file}: init_lora_weights is ${JSON.stringify(init)}`;
  if (!KNOWN_INITS.includes(name)) {
    throw new PeftTrainError(
      "ADAPTER_UNSUPPORTED",
      `${found}, which changed the base weights before training in a way that the file does not tell`,
      {
        hint: "Convert it with PEFT: save_pretrained(..., path_initial_model_for_weight_conversion=...) writes plain LoRA.",
      },
    );
  }
  if ((name === "pissa" || name === "olora") && use_dora === true) {
    throw new PeftTrainError(
      "ADAPTER_UNSUPPORTED",
      `${found} with use_dora, which this version does not support`,
    );
  }
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) && Object.keys(value).length === 0;
}
