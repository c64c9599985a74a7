import { PeftTrainError } from "../errors.js";
import type { ModelFolder } from "../model/folder.js";
import { isObject, type JsonObject } from "../model/json-file.js";
import { ModelWeights } from "../model/model-weights.js";
import type { LoraModule, WeightStorage } from "../native/types.js";

/**
 * What an adapter of PEFT's init_lora_weights "loftq" runs over: whenever PEFT loads it, it quantises the base anew (lora/layer.py,
 * loftq_init; loftq_utils.py), in NF4 with blocks of 64 or in int8 row by row, in turns with a low-rank correction.
 */
export interface LoftqBase {
  bits: 4 | 8;
  iterations: number;
}

/** @throws MODEL_CORRUPT for a loftq_config that PEFT would not take. */
export function parseLoftq(config: JsonObject, file: string): LoftqBase | undefined {
  const { init_lora_weights: init } = config;
  // PEFT passes over loftq_config otherwise.
  if (typeof init !== "string" || init.toLowerCase() !== "loftq") return undefined;
  const { loftq_config: given } = config;
  const { loftq_bits: bits = 4, loftq_iter: iterations = 1 } = isObject(given) ? given : {};
  if ((bits === 4 || bits === 8) && Number.isSafeInteger(iterations) && (iterations as number) > 0) {
    return { bits, iterations: iterations as number };
  }
  throw new PeftTrainError(
    "MODEL_CORRUPT",
    `${file}: expected loftq_config to say loftq_bits 4 or 8 and loftq_iter above 0, found ${JSON.stringify(given ?? null)}`,
  );
}

/**
 * Lets such an adapter onto weights that are what PEFT makes of them: held in NF4 as one iteration does, or lying on the code book's
 * levels already, which quantising leaves as they are however often it is done.
 * @param held How the weights are to be held; undefined for float32.
 * @throws ADAPTER_UNSUPPORTED naming what would be computed otherwise
 */
export async function requireLoftqBase(
  { bits, iterations }: LoftqBase,
  modules: readonly LoraModule[],
  model: ModelFolder,
  held: WeightStorage | undefined,
  file: string,
): Promise<void> {
  if (bits === 4 && iterations === 1 && held !== undefined && isPlainNf4(held)) return;
  if (model.quantized === undefined && (await liesOnLevels(bits, modules, model))) return;
  const turns = iterations === 1 ? "" : `, in ${iterations} turns with a low-rank correction`;
  throw new PeftTrainError(
    "ADAPTER_UNSUPPORTED",
    `${file}: init_lora_weights is "loftq", for which PEFT quantises the matrices of LoRA to ${bits} bits first${turns}; ` +
      `those of ${model.name} are not so`,
    {
      hint:
        (bits === 4 && iterations === 1 ? "Hold them in NF4 with --load_in_4bit, or give" : "Give") +
        " as the base what PEFT made of it: load both with PEFT, then model.unload().save_pretrained(DIR).",
    },
  );
}

/** As bitsandbytes' Params4bit is without options. */
function isPlainNf4({ format, blockSize, doubleQuant, outlierFraction }: WeightStorage): boolean {
  return format === "nf4" && blockSize === 64 && !doubleQuant && outlierFraction === 0;
}

async function liesOnLevels(
  bits: 4 | 8,
  modules: readonly LoraModule[],
  model: ModelFolder,
): Promise<boolean> {
  await using weights = await ModelWeights.open(model.weightsPath);
  for (const { name } of modules) {
    const key = `${weights.prefix}${name}.weight`;
    const [, columns = 0] = weights.shape(key);
    const values = await weights.floats(key);
    const on = bits === 4 ? onLevels(values, NF4_BLOCK, isNf4Level) : onLevels(values, columns, isInt8Level);
    if (!on) return false;
  }
  return true;
}

/** Whether every number over the largest of its block is a level. */
function onLevels(values: Float32Array, blockSize: number, isLevel: (value: number) => boolean): boolean {
  for (let start = 0; start < values.length; start += blockSize) {
    const block = values.subarray(start, start + blockSize);
    const most = block.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    if (most > 0 && !block.every((value) => isLevel(value / most))) return false;
  }
  return true;
}

const NF4_BLOCK = 64;
/** bitsandbytes' create_normal_map; 0 and 1 are levels too. */
const NF4_LEVELS: readonly number[] = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];

/** To what bfloat16 rounds off; other weights do not all lie so near: levels are 0.08 apart at least. */
function isNf4Level(value: number): boolean {
  return NF4_LEVELS.some((level) => Math.abs(value - level) < 4e-3);
}

/** To what float16 rounds off. */
function isInt8Level(value: number): boolean {
  return Math.abs(127 * value - Math.round(127 * value)) < 0.1;
}
