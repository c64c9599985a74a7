import { open } from "node:fs/promises";
import { fileError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import type { WeightStorage } from "../native/types.js";
import { isObject, type JsonObject } from "./json-file.js";
import type { TensorHeader } from "./safetensors-header.js";

/** What `quantization_config` of a config.json says: transformers' BitsAndBytesConfig, as far as it matters here. */
export interface BitsAndBytes {
  bits: 4 | 8;
  /** llm_int8_threshold. */
  outlierThreshold: number;
}

/** LLM.int8()'s own threshold, which transformers writes too. */
export const OUTLIER_THRESHOLD = 6;
const COPY_CONFIG = "Copy config.json from its origin again, or quantise the model again.";
const FOUR_BIT_STATE = /\.weight\.quant_state\.bitsandbytes__(nf4|fp4)$/;
const INT8_SCALE = /\.SCB$/;

/**
 * Reads `quantization_config`; undefined where the model is not quantised.
 * @param file Path of the config.json, for messages.
 * @throws MODEL_UNSUPPORTED for every other method by its name, MODEL_CORRUPT.
 */
export function parseQuantizationConfig(config: JsonObject, file: string): BitsAndBytes | undefined {
  const value = config.quantization_config;
  if (value === undefined || value === null) return undefined;
  if (!isObject(value)) {
    throw new PeftTrainError("MODEL_CORRUPT", `${file}: expected quantization_config to be an object`, {
      hint: COPY_CONFIG,
    });
  }
  const four = value.load_in_4bit === true;
  const eight = value.load_in_8bit === true;
  // Before it had a name for its methods, transformers wrote the two switches alone.
  const method = value.quant_method ?? (four || eight ? "bitsandbytes" : "unknown");
  if (method !== "bitsandbytes") {
    throw new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `${file}: the weights are quantised by ${String(method)}; only bitsandbytes is supported`,
      { hint: "Give the folder of the model before quantisation; --load_in_4bit quantises it here." },
    );
  }
  if (four === eight) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: quantization_config has ${four ? "both load_in_4bit and load_in_8bit" : "neither load_in_4bit nor load_in_8bit"}`,
      { hint: COPY_CONFIG },
    );
  }
  const storage = value.bnb_4bit_quant_storage ?? "uint8";
  if (four && storage !== "uint8") {
    throw unsupported(file, `bnb_4bit_quant_storage ${JSON.stringify(storage)}`, "uint8");
  }
  if (eight && value.llm_int8_has_fp16_weight === true) {
    throw unsupported(file, "llm_int8_has_fp16_weight true", "false");
  }
  const threshold = value.llm_int8_threshold ?? OUTLIER_THRESHOLD;
  if (typeof threshold !== "number" || !(threshold >= 0)) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected llm_int8_threshold to be a number of at least 0, found ${JSON.stringify(threshold)}`,
      { hint: COPY_CONFIG },
    );
  }
  checkSkipped(value.llm_int8_skip_modules ?? [], file);
  return { bits: four ? 4 : 8, outlierThreshold: threshold };
}

/** Modules that transformers left as they were, by name: those that no encoder here has are no matter. */
function checkSkipped(skipped: unknown, file: string): void {
  const names =
    Array.isArray(skipped) && skipped.every((name) => typeof name === "string") ? skipped : undefined;
  if (names === undefined) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: expected llm_int8_skip_modules to be a list of names, found ${JSON.stringify(skipped)}`,
      { hint: COPY_CONFIG },
    );
  }
  const inEncoder = names.filter((name) => !/^(bert\.)?(pooler|lm_head|classifier|cls)\b/.test(name));
  if (inEncoder.length === 0) return;
  throw unsupported(
    file,
    `llm_int8_skip_modules ${JSON.stringify(inEncoder)}`,
    "every matrix of the encoder to be quantised",
  );
}

function unsupported(file: string, found: string, expected: string): PeftTrainError {
  return new PeftTrainError("MODEL_UNSUPPORTED", `${file}: expected ${expected}, found ${found}`, {
    hint: "Give the folder of the model before quantisation, or write it with `npx peft-train quantize`.",
  });
}

/**
 * How the weights of a quantised file are held; undefined for a file of plain numbers. Type, block size and the rest come
 * from the tensors, as transformers takes them, for its config may say otherwise. The engine checks every layer.
 * @throws MODEL_CORRUPT where config.json and weights disagree, QUANT_STATE.
 */
export async function readQuantization(
  config: BitsAndBytes | undefined,
  configPath: string,
  tensors: ReadonlyMap<string, TensorHeader>,
  weightsPath: string,
): Promise<WeightStorage | undefined> {
  const states = [...tensors].filter(([key]) => FOUR_BIT_STATE.test(key));
  const four = states[0];
  const eight = [...tensors.keys()].find((key) => INT8_SCALE.test(key));
  const found = four !== undefined ? 4 : eight !== undefined ? 8 : undefined;
  if (found !== config?.bits) {
    const said =
      config === undefined ? "no quantization_config" : `a quantization_config of ${config.bits} bits`;
    const held = found === undefined ? "weights that are not quantised" : `weights of ${found} bits`;
    throw new PeftTrainError("MODEL_CORRUPT", `${configPath} has ${said}, ${weightsPath} holds ${held}`, {
      hint: "config.json and model.safetensors do not belong together.",
    });
  }
  if (config === undefined) return undefined;
  const { outlierThreshold } = config;
  if (four === undefined) {
    return { format: "int8", blockSize: 64, doubleQuant: false, outlierFraction: 0, outlierThreshold };
  }
  const [key, header] = four;
  return {
    format: FOUR_BIT_STATE.exec(key)?.[1] === "fp4" ? "fp4" : "nf4",
    blockSize: await blockSize(key, header, tensors, weightsPath),
    doubleQuant: [...tensors.keys()].some((name) => name.endsWith(".weight.nested_absmax")),
    outlierFraction: outlierFraction(
      states.map(([name]) => name.replace(/\.quant_state\..*$/, "")),
      tensors,
    ),
    outlierThreshold,
  };
}

/** Of the quantised weights, two of which are in a byte. */
function outlierFraction(weights: string[], tensors: ReadonlyMap<string, TensorHeader>): number {
  const elements = (name: string): number => tensors.get(name)?.shape.reduce((a, b) => a * b, 1) ?? 0;
  const sum = (suffix: string): number => weights.reduce((total, key) => total + elements(key + suffix), 0);
  const all = 2 * sum("");
  return all === 0 ? 0 : sum(".outlier_value") / all;
}

/** A state is a few hundred bytes of JSON. */
const LARGEST_STATE = 1 << 16;

async function blockSize(
  key: string,
  { begin, end }: TensorHeader,
  tensors: ReadonlyMap<string, TensorHeader>,
  file: string,
): Promise<number> {
  const dataBytes = Math.max(...[...tensors.values()].map((tensor) => tensor.end));
  const bytes = Buffer.alloc(Math.min(end - begin, LARGEST_STATE));
  try {
    await using handle = await open(file);
    const { size } = await handle.stat();
    await handle.read(bytes, 0, bytes.length, size - dataBytes + begin);
  } catch (cause) {
    throw fileError(file, cause);
  }
  let state: unknown;
  try {
    state = JSON.parse(bytes.toString("utf8"));
  } catch {
    state = undefined;
  }
  const size = isObject(state) ? state.blocksize : undefined;
  if (isBlockSize(size)) return size;
  throw new PeftTrainError(
    "QUANT_STATE",
    `${file}: "${key}": expected a blocksize that is a power of two from 32 to 4096, found ` +
      JSON.stringify(size ?? null),
    { hint: "Copy the file from its origin again, or quantise the model again." },
  );
}

export function isBlockSize(value: unknown): value is number {
  return typeof value === "number" && [32, 64, 128, 256, 512, 1024, 2048, 4096].includes(value);
}

/**
 * Text of a config.json with the `quantization_config` that transformers writes for such weights; keys sorted, as its.
 * @param config The source's.
 * @param hasPooler transformers would fail to make the missing pooler of a quantised model anew, unless it is skipped.
 */
export function formatQuantizedConfig(
  config: JsonObject,
  storage: WeightStorage,
  hasPooler: boolean,
): string {
  const eight = storage.format === "int8";
  const quantization = {
    _load_in_4bit: !eight,
    _load_in_8bit: eight,
    bnb_4bit_compute_dtype: "float32",
    bnb_4bit_quant_storage: "uint8",
    // What BitsAndBytesConfig says where there are no 4 bits.
    bnb_4bit_quant_type: eight ? "fp4" : storage.format,
    bnb_4bit_use_double_quant: !eight && storage.doubleQuant,
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    llm_int8_skip_modules: hasPooler ? null : ["pooler"],
    llm_int8_threshold: storage.outlierThreshold,
    load_in_4bit: !eight,
    load_in_8bit: eight,
    quant_method: "bitsandbytes",
  };
  const text = JSON.stringify(sorted({ ...config, quantization_config: quantization }), null, 2);
  // Python reads a threshold as a float only if it is written as one.
  return `${text.replace(/("llm_int8_threshold": \d+)(,?)$/m, "$1.0$2")}\n`;
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted(value[key])]),
  );
}
