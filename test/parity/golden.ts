import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseAdapterConfig } from "../../lib/adapter/config.js";
import { resolveTargets } from "../../lib/adapter/targets.js";
import { loadEngine } from "../../lib/native/load.js";
import type {
  AdapterSpec,
  ExampleBatch,
  LoraModule,
  ModelShape,
  NativeEncoder,
  Pooling,
  TokenBatch,
} from "../../lib/native/types.js";
import { readTensors } from "./safetensors.js";

interface AdapterCase {
  model: string;
  modules: LoraModule[];
  /** What the engine is told beside them. */
  variant?: Omit<AdapterSpec, "modules" | "dropout">;
  trainableParameters: number;
  allParameters: number;
  loss: number;
  /** Keys the loss does not reach: autograd has no gradient for them at all. */
  unreached: string[];
  noise: { loss: number; gradients: number };
}

interface TrainingRun {
  adapter: string;
  weightDecay: number;
  maxGradNorm: number;
  steps: number;
  keep: number[];
  records: { loss: number; gradNorm: number; learningRate: number }[];
  /** Largest |weight after - weight before|. */
  moved: number;
  /** Largest change of a final weight when decay or clipping is left out. */
  shiftByDecay?: number;
  shiftByClipping?: number;
  noise: { loss: number; weights: number };
}

interface DropoutCase {
  rates: { hidden: number; attention: number; lora: number };
  draws: number;
  lossMean: number;
  lossDeviation: number;
}

interface Manifest {
  format: number;
  casePairs: number;
  batches: [number, number][];
  models: Record<string, { pooling: Pooling }>;
  noise: { embeddings: number };
  adapters: Record<string, AdapterCase>;
  runs: Record<string, TrainingRun>;
  dropout: Record<string, DropoutCase>;
}

export function goldenPath(path: string): string {
  return fileURLToPath(new URL(`../fixtures/golden/${path}`, import.meta.url));
}

/** What make_golden.py recorded; see there for how each number came about. */
export const manifest = JSON.parse(readFileSync(goldenPath("manifest.json"), "utf8")) as Manifest;
if (manifest.format !== 1) throw new Error(`golden files of format 1 expected, not ${manifest.format}`);

export const goldenEmbeddings = readTensors(goldenPath("embeddings.safetensors")).floats;
export const adapterPath = (name: string) => goldenPath(`adapters/${name}/adapter_model.safetensors`);

export function pick<T>(record: Record<string, T>, key: string): T {
  const value = record[key];
  if (value === undefined) throw new Error(`no ${key} among ${Object.keys(record).join(", ")}`);
  return value;
}

export function goldenShape(model: string): ModelShape {
  const config = JSON.parse(readFileSync(goldenPath(`models/${model}/config.json`), "utf8"));
  return {
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    numLayers: config.num_hidden_layers,
    numHeads: config.num_attention_heads,
    intermediateSize: config.intermediate_size,
    maxPositions: config.max_position_embeddings,
    typeVocabSize: config.type_vocab_size,
    layerNormEps: config.layer_norm_eps,
    hiddenDropout: 0,
    attentionDropout: 0,
  };
}

export interface GoldenOptions {
  pooling?: Pooling;
  threads?: number;
  hiddenDropout?: number;
  attentionDropout?: number;
  /** An adapter case whose file is loaded, and the rate of its dropout. */
  adapter?: string;
  loraDropout?: number;
}

export function goldenSpec(name: string, dropout = 0): AdapterSpec {
  const { modules, variant } = pick(manifest.adapters, name);
  return { modules, dropout, ...variant };
}

/** What the engine is told of an adapter folder over the model `plain`. */
export function specOfFolder(folder: string): AdapterSpec {
  const file = goldenPath(`${folder}/adapter_config.json`);
  const { lora } = parseAdapterConfig(JSON.parse(readFileSync(file, "utf8")), file);
  return resolveTargets(lora, { shape: goldenShape("plain"), hasPooler: true });
}

/**
 * What was trained of an adapter: one over what it left of the base has a second half that says what it took from there.
 */
export function trainedPart(
  name: string,
  weights: Record<string, Float32Array>,
): Record<string, Float32Array> {
  const { modules, variant } = pick(manifest.adapters, name);
  if (variant?.init === undefined) return weights;
  const ranks = new Map(modules.map((module) => [module.name, module.rank]));
  const entries = Object.entries(weights).map(([key, values]) => {
    const [, module = "", matrix] = /^base_model\.model\.(.*)\.lora_([AB])\.weight$/.exec(key) ?? [];
    const rank = ranks.get(module) ?? Number.NaN;
    const part =
      matrix === "A" ? values.subarray(0, values.length / 2) : values.filter((_, i) => i % (2 * rank) < rank);
    return [key, part] as const;
  });
  return Object.fromEntries(entries);
}

/** Opens a golden model without dropout unless asked, runs `body` with it, and closes it whatever happens. */
export async function withGolden<T>(
  model: string,
  options: GoldenOptions,
  body: (encoder: NativeEncoder) => Promise<T>,
): Promise<T> {
  const encoder = await loadEngine().open({
    weightsPath: goldenPath(`models/${model}/model.safetensors`),
    shape: {
      ...goldenShape(model),
      hiddenDropout: options.hiddenDropout ?? 0,
      attentionDropout: options.attentionDropout ?? 0,
    },
    pooling: options.pooling ?? pick(manifest.models, model).pooling,
    device: "cpu",
    threads: options.threads ?? 1,
  });
  try {
    if (options.adapter !== undefined) {
      const spec = goldenSpec(options.adapter, options.loraDropout);
      await encoder.loadAdapter(adapterPath(options.adapter), spec);
    }
    return await body(encoder);
  } finally {
    await encoder.close();
  }
}

const pairs = readTensors(goldenPath("pairs.safetensors"));
const allIds = pick(pairs.ints, "ids");
const allOffsets = pick(pairs.ints, "cuSeqlens");
const allLabels = pick(pairs.floats, "labels");

/** The texts of these numbers, in this order, packed. */
export function textBatch(texts: readonly number[]): TokenBatch {
  const rows = texts.map((i) => allIds.subarray(allOffsets[i], allOffsets[i + 1]));
  const cuSeqlens = new Int32Array(rows.length + 1);
  for (const [i, row] of rows.entries()) cuSeqlens[i + 1] = (cuSeqlens[i] ?? 0) + row.length;
  const ids = new Int32Array(cuSeqlens[rows.length] ?? 0);
  for (const [i, row] of rows.entries()) ids.set(row, cuSeqlens[i]);
  return { ids, cuSeqlens };
}

/** The pairs of these numbers, in this order. */
export function pairBatch(numbers: readonly number[]): ExampleBatch {
  const batch = textBatch(numbers.flatMap((i) => [2 * i, 2 * i + 1]));
  return {
    ...batch,
    textsPerExample: 2,
    labels: Float32Array.from(numbers, (i) => allLabels[i] ?? Number.NaN),
  };
}

export function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

/** What the embedding and gradient cases were computed on. */
export const caseTexts = textBatch(range(0, 2 * manifest.casePairs));
export const casePairs = pairBatch(range(0, manifest.casePairs));
