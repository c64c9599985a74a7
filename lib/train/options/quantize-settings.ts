import { nearest } from "../../data/nearest.js";
import { PeftTrainError } from "../../errors.js";
import type { StorageRequest } from "../../model/storage.js";
import { parseOption } from "./option-value.js";
import { storageRequest, type WeightOption, type WeightOptionValues } from "./weight-options.js";

/** How the library is told to quantise: the command line's options under names of their own. */
export interface QuantizeSettings {
  /** 4 bits by quantiles of a normal distribution, 4 bits of floating point, or 8 bits row by row. */
  type: "nf4" | "fp4" | "int8";
  /** 4 bits: weights that share one scale, a power of two from 32 to 4096. Default: 64. */
  blockSize?: number | undefined;
  /** 4 bits: hold the scales in 8 bits too. Default: false. */
  doubleQuant?: boolean | undefined;
  /** 4 bits: part of the weights kept in float16, 0 to 0.1. Default: 0. */
  outlierFraction?: number | undefined;
  /** int8: entries of the input of at least this magnitude are multiplied in float16; 0: none. Default: 6. */
  outlierThreshold?: number | undefined;
}

const FLAGS: Record<Exclude<keyof QuantizeSettings, "type">, WeightOption> = {
  blockSize: "quant_block_size",
  doubleQuant: "bnb_4bit_use_double_quant",
  outlierFraction: "outlier_fraction",
  outlierThreshold: "outlier_threshold",
};
const TYPES: readonly unknown[] = ["nf4", "fp4", "int8"];

/** @throws USAGE, as the command line's options. */
export function quantizeRequest(
  quantize: QuantizeSettings["type"] | QuantizeSettings | undefined,
  dtype?: unknown,
): StorageRequest {
  const values: WeightOptionValues = {};
  if (dtype !== undefined) values.torch_dtype = parseOption("torch_dtype", dtype, label);
  if (quantize === undefined) return storageRequest(values, label);
  const isObject = typeof quantize === "object" && quantize !== null && !Array.isArray(quantize);
  const { type, ...rest } = isObject ? quantize : { type: quantize as QuantizeSettings["type"] };
  if (!TYPES.includes(type)) {
    const name = isObject ? "quantize.type" : "quantize";
    const found = type === undefined ? " is missing" : `=${JSON.stringify(type)}`;
    throw new PeftTrainError("USAGE", `${name}${found}: expected one of nf4, fp4, int8`, {
      hint: 'For example: quantize: "nf4", or quantize: { type: "nf4", blockSize: 64 }.',
    });
  }
  if (type === "int8") values.load_in_8bit = true;
  else Object.assign(values, { load_in_4bit: true, bnb_4bit_quant_type: type });
  for (const [key, value] of Object.entries(rest)) {
    const name = (FLAGS as Record<string, WeightOption | undefined>)[key];
    if (name === undefined) {
      const near = nearest(key, Object.keys(FLAGS));
      throw new PeftTrainError("USAGE", `unknown setting quantize.${key}`, {
        ...(near === undefined ? {} : { hint: `Did you mean quantize.${near}?` }),
      });
    }
    // Numbers as text are for flags: in quotes they are none.
    const plain = typeof value === "string" ? JSON.stringify(value) : value;
    if (plain !== undefined) values[name] = parseOption(name, plain, label);
  }
  return storageRequest(values, label);
}

/** What a weight option is called in the library. */
function label(name: string): string {
  const setting = Object.entries(FLAGS).find(([, flag]) => flag === name)?.[0];
  if (setting !== undefined) return `quantize.${setting}`;
  if (name === "torch_dtype") return "dtype";
  if (name === "load_in_4bit") return 'quantize "nf4"';
  return name === "load_in_8bit" ? 'quantize "int8"' : "quantize";
}
