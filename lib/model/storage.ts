import { PeftTrainError } from "../errors.js";
import type { ModelShape, WeightFormat, WeightStorage } from "../native/types.js";
import type { ModelFolder } from "./folder.js";
import { OUTLIER_THRESHOLD } from "./quantization.js";

/** What somebody asks of the frozen weights. What is undefined was not said. */
export interface StorageRequest {
  /** `4bit` leaves the code book open: NF4, or the one that the file has. */
  format: WeightFormat | "4bit" | undefined;
  blockSize: number | undefined;
  doubleQuant: boolean | undefined;
  outlierFraction: number | undefined;
  outlierThreshold: number | undefined;
  /** 8 bits: train with an input gradient in 8 bits too. */
  int8Gradient: true | undefined;
  /** Mixed precision: what both operands of a product are rounded to. */
  products: "float16" | "bfloat16" | undefined;
  /** How each is called where it was said: `--quant_block_size`. */
  labels: Readonly<Record<Exclude<keyof WeightStorage, "int8Gradient">, string>>;
}

const FIELDS = ["blockSize", "doubleQuant", "outlierFraction", "outlierThreshold"] as const;

/**
 * How the weights of a model are to be held; undefined leaves them as the file has them, in float32.
 * @throws ALREADY_QUANTIZED where the file holds them otherwise than was asked, USAGE.
 */
export function chooseStorage(request: StorageRequest, model: ModelFolder): WeightStorage | undefined {
  const { format } = request;
  if (model.quantized !== undefined) return keepStorage(request, model, model.quantized);
  if (request.outlierThreshold !== undefined && format !== "int8") {
    throw thresholdInVain(request, model.name);
  }
  const plain = format === undefined || format === "float32";
  return plain && request.products === undefined ? undefined : wholeStorage(request, format ?? "float32");
}

/** A storage of `format` with the defaults for what was not said. */
export function wholeStorage(request: StorageRequest, format: WeightFormat | "4bit"): WeightStorage {
  return {
    format: format === "4bit" ? "nf4" : format,
    blockSize: request.blockSize ?? 64,
    doubleQuant: request.doubleQuant ?? false,
    outlierFraction: request.outlierFraction ?? 0,
    outlierThreshold: request.outlierThreshold ?? OUTLIER_THRESHOLD,
    ...(request.int8Gradient && { int8Gradient: true }),
    ...(request.products && { products: request.products }),
  };
}

/** The threshold alone is no property of the file; it is for 8 bits. */
function keepStorage(request: StorageRequest, model: ModelFolder, held: WeightStorage): WeightStorage {
  const { format, labels } = request;
  const { name, shape } = model;
  const same = format === "4bit" ? held.format !== "int8" : format === undefined || format === held.format;
  if (!same) throw disagrees(name, held, labels.format);
  if (request.products !== undefined) {
    throw new PeftTrainError(
      "NOT_YET_AVAILABLE",
      `${labels.products}: the weights of ${name} are quantised, as ${describeStorage(held)}, and multiplied in float32`,
      { hint: "Leave it out, or give the folder of the model before quantisation." },
    );
  }
  if (request.outlierThreshold !== undefined && held.format !== "int8") throw thresholdInVain(request, name);
  for (const field of FIELDS) {
    const asked = request[field];
    if (asked === undefined || field === "outlierThreshold") continue;
    if (field === "outlierFraction" && roundsTo(asked as number, held.outlierFraction, shape)) continue;
    if (asked !== held[field]) throw disagrees(name, held, labels[field]);
  }
  return {
    ...held,
    outlierThreshold: request.outlierThreshold ?? held.outlierThreshold,
    ...(request.int8Gradient && { int8Gradient: true }),
  };
}

/** A fraction is rounded down to whole weights of every matrix: by less than one weight of the smallest. */
function roundsTo(asked: number, held: number, { hiddenSize, intermediateSize }: ModelShape): boolean {
  const smallest = hiddenSize * Math.min(hiddenSize, intermediateSize);
  return held <= asked && asked - held < 1 / smallest;
}

function thresholdInVain({ labels }: StorageRequest, model: string): PeftTrainError {
  return new PeftTrainError(
    "USAGE",
    `${labels.outlierThreshold} is for 8-bit weights, and those of ${model} are not`,
    { hint: "Hold them in 8 bits, or leave it out." },
  );
}

function disagrees(model: string, held: WeightStorage, label: string): PeftTrainError {
  return new PeftTrainError(
    "ALREADY_QUANTIZED",
    `${label}: the weights of ${model} are quantised already, as ${describeStorage(held)}`,
    { hint: "Leave it out, or give the folder of the model before quantisation." },
  );
}

/** nf4, blocks of 64, 8-bit scales, 0.5 % kept in float16 */
export function describeStorage(storage: WeightStorage | undefined): string {
  if (storage === undefined) return "float32";
  const { format, blockSize, doubleQuant, outlierFraction, outlierThreshold } = storage;
  const parts: string[] = [format];
  if (format === "nf4" || format === "fp4") {
    parts.push(`blocks of ${blockSize}`);
    if (doubleQuant) parts.push("8-bit scales");
    if (outlierFraction > 0)
      parts.push(`${Number((100 * outlierFraction).toPrecision(3))} % kept in float16`);
  }
  if (format === "int8") {
    parts.push(outlierThreshold > 0 ? `outliers from ${outlierThreshold} apart` : "no outliers apart");
    if (storage.int8Gradient) parts.push("gradient in int8");
  }
  if (storage.products) parts.push(`multiplied in ${storage.products}`);
  return parts.join(", ");
}
