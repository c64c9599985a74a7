import { PeftTrainError } from "../../errors.js";
import type { StorageRequest } from "../../model/storage.js";
import type { WeightFormat } from "../../native/types.js";
import type { OptionName } from "./option-table.js";

/** Options that say how frozen weights are held: the same for training, evaluating, encoding and quantising. */
export const WEIGHT_OPTIONS = [
  "load_in_4bit",
  "bnb_4bit_quant_type",
  "bnb_4bit_use_double_quant",
  "quant_block_size",
  "outlier_fraction",
  "load_in_8bit",
  "outlier_threshold",
  "torch_dtype",
] as const satisfies readonly OptionName[];

/** Those of training: how its frozen matrices are multiplied as well. */
export const TRAIN_WEIGHT_OPTIONS = [
  ...WEIGHT_OPTIONS,
  "compute",
  "mixed_precision",
] as const satisfies readonly OptionName[];

export type WeightOption = (typeof TRAIN_WEIGHT_OPTIONS)[number];
/** Values by flag, each of its option's type; null or undefined where it was not given. */
export type WeightOptionValues = Partial<Record<WeightOption, unknown>>;

const FOUR_BIT_ONLY = [
  "bnb_4bit_quant_type",
  "bnb_4bit_use_double_quant",
  "quant_block_size",
  "outlier_fraction",
] as const;

/**
 * What the options ask for, held against each other before any model is read.
 * @throws USAGE for options that contradict each other.
 */
export function storageRequest(
  values: WeightOptionValues,
  label: (name: WeightOption) => string,
): StorageRequest {
  const said = (name: WeightOption): boolean => values[name] !== undefined && values[name] !== null;
  const given = (name: WeightOption): boolean => said(name) && values[name] !== false;
  const [four, eight] = [given("load_in_4bit"), given("load_in_8bit")];
  if (four && eight) throw contradiction(`${label("load_in_4bit")} and ${label("load_in_8bit")}`);
  const computed = values.compute === "int8";
  const products = mixedProducts(values.mixed_precision);
  if (products !== undefined && (computed || four || eight)) {
    const other = computed ? `${label("compute")}=int8` : label(four ? "load_in_4bit" : "load_in_8bit");
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${label("mixed_precision")}=${values.mixed_precision} does not go with ${other}: quantised weights are multiplied ` +
        "in float32 or in whole numbers",
      { hint: "Leave one of them out." },
    );
  }
  if (computed && (four || given("torch_dtype"))) {
    const other = label(four ? "load_in_4bit" : "torch_dtype");
    throw new PeftTrainError(
      "USAGE",
      `${label("compute")}=int8 holds frozen matrices in 8 bits, not as ${other} asks`,
      {
        hint: "Leave one of them out.",
      },
    );
  }
  if (given("torch_dtype") && (four || eight)) {
    const other = label(four ? "load_in_4bit" : "load_in_8bit");
    throw contradiction(`${label("torch_dtype")} and ${other}`);
  }
  const idle = four ? undefined : FOUR_BIT_ONLY.find(said);
  if (idle !== undefined) {
    throw new PeftTrainError("USAGE", `${label(idle)} is for 4-bit weights`, {
      hint: `Give ${label("load_in_4bit")} with it, or leave it out.`,
    });
  }
  if (given("outlier_threshold") && (four || given("torch_dtype"))) {
    throw new PeftTrainError("USAGE", `${label("outlier_threshold")} is for 8-bit weights`, {
      hint: `Give ${label("load_in_8bit")} with it, or leave it out.`,
    });
  }
  const typed = given("bnb_4bit_quant_type") ? (values.bnb_4bit_quant_type as "nf4" | "fp4") : "4bit";
  const [format, from] = four
    ? ([typed, typed === "4bit" ? "load_in_4bit" : "bnb_4bit_quant_type"] as const)
    : eight || computed
      ? (["int8", eight ? "load_in_8bit" : "compute"] as const)
      : ([(values.torch_dtype ?? undefined) as WeightFormat | undefined, "torch_dtype"] as const);
  return {
    format,
    blockSize: number(values.quant_block_size),
    doubleQuant: said("bnb_4bit_use_double_quant") ? given("bnb_4bit_use_double_quant") : undefined,
    outlierFraction: number(values.outlier_fraction),
    outlierThreshold: number(values.outlier_threshold),
    int8Gradient: computed || undefined,
    products,
    labels: {
      format: label(from),
      blockSize: label("quant_block_size"),
      doubleQuant: label("bnb_4bit_use_double_quant"),
      outlierFraction: label("outlier_fraction"),
      outlierThreshold: label("outlier_threshold"),
      products: label("mixed_precision"),
    },
  };
}

function mixedProducts(value: unknown): StorageRequest["products"] {
  if (value === "fp16") return "float16";
  return value === "bf16" ? "bfloat16" : undefined;
}

function contradiction(both: string): PeftTrainError {
  return new PeftTrainError("USAGE", `${both} are two ways to hold the same weights; give one of them`);
}

function number(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
