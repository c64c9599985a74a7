/**
 * The whole interface between TypeScript and the native engine. Nothing else crosses the boundary.
 *
 * Token batches cross as typed arrays and are copied before a call returns; results are fresh buffers. Every
 * method that returns a promise runs on the encoder's own thread; a second call while one is running rejects with
 * `ENCODER_BUSY`, a call after `close()` with `ENCODER_CLOSED`.
 */

/** Sizes and rates of a BERT encoder, from its config.json. */
export interface ModelShape {
  vocabSize: number;
  hiddenSize: number;
  numLayers: number;
  numHeads: number;
  intermediateSize: number;
  maxPositions: number;
  typeVocabSize: number;
  layerNormEps: number;
  /** Rates while training; encoding never drops. */
  hiddenDropout: number;
  attentionDropout: number;
}

export type Pooling = "mean" | "cls";

export interface OpenOptions {
  /** Absolute path of a model.safetensors. */
  weightsPath: string;
  shape: ModelShape;
  pooling: Pooling;
  /** `cpu`, `cuda` or `cuda:N`. */
  device: string;
  /** Threads of the matrix products; 0 takes the number of physical cores. */
  threads: number;
}

/** One linear layer that LoRA wraps: y = W x + b + scale * B(A(dropout(x))). */
export interface LoraModule {
  /** Full module name inside BertModel, such as `encoder.layer.0.attention.self.query`. */
  name: string;
  rank: number;
  /** alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  scale: number;
}

export interface AdapterSpec {
  modules: LoraModule[];
  /** Rate of the dropout on x before A, while training. */
  dropout: number;
}

/** Texts as packed token ids: text i is `ids[cuSeqlens[i] .. cuSeqlens[i + 1])`. No padding anywhere. */
export interface TokenBatch {
  ids: Int32Array;
  /** Cumulative lengths, one more entry than there are texts; starts with 0. */
  cuSeqlens: Int32Array;
}

/** Texts 2i and 2i + 1 are pair i. */
export interface PairBatch extends TokenBatch {
  /** One label a pair: 1 for the same meaning, 0 for another. */
  labels: Float32Array;
}

export interface DropoutKey {
  /** Seed of the run. */
  seed: number;
  /** Number of the optimiser step, from 0: masks depend on seed, step, layer and position alone. */
  step: number;
}

export interface StepOptions extends DropoutKey {
  learningRate: number;
  /** Decoupled (AdamW) decay; 0 gives Adam. */
  weightDecay: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Clip the global gradient norm to this; 0 leaves gradients alone. */
  maxGradNorm: number;
  /** Pairs are run through the encoder in groups of about this many tokens; the gradient is the whole batch's. */
  microBatchTokens: number;
}

export interface StepResult {
  /** Mean loss over the pairs of the batch. */
  loss: number;
  /** Global L2 norm of the LoRA gradients before clipping. */
  gradNorm: number;
}

export interface GradientResult {
  loss: number;
  /** Keyed as the adapter file is, each flattened row-major. */
  gradients: Record<string, Float32Array>;
}

export interface EncodeOptions {
  /** False gives the embeddings of the untouched base model. */
  adapter: boolean;
  /** L2-normalise the pooled vectors. */
  normalize: boolean;
  microBatchTokens: number;
}

export interface EncoderInfo {
  device: string;
  threads: number;
  /** Parameters of the base model as Python counts them, pooler included where the file has one. */
  baseParameters: number;
  trainableParameters: number;
  frozenBytes: number;
}

export interface NativeEncoder {
  info(): EncoderInfo;
  /** Installs a fresh adapter: A kaiming-uniform(a = sqrt 5) drawn from `seed`, B zero, Adam state zero. */
  createAdapter(spec: AdapterSpec, seed: number): Promise<void>;
  /** Installs the adapter of a file; every key of `spec` must be there, and no other. */
  loadAdapter(path: string, spec: AdapterSpec): Promise<void>;
  /** Writes adapter_model.safetensors to `path` and syncs it. */
  saveAdapter(path: string): Promise<void>;
  removeAdapter(): Promise<void>;
  /** Forward, backward and one Adam step over the whole batch. */
  step(batch: PairBatch, options: StepOptions): Promise<StepResult>;
  /** Forward and backward only: what `step` would feed to Adam, unclipped. */
  gradients(batch: PairBatch, options: DropoutKey & { microBatchTokens: number }): Promise<GradientResult>;
  /** One row of `hiddenSize` floats a text, in input order. */
  encode(batch: TokenBatch, options: EncodeOptions): Promise<Float32Array>;
  /** Adapter weights as they stand, keyed as the adapter file is. */
  adapterWeights(): Promise<Record<string, Float32Array>>;
  /** Frees the model. Waits for a running call; safe to call twice. */
  close(): Promise<void>;
}

export interface EngineInfo {
  engineVersion: string;
  torchVersion: string;
  cudaDevices: number;
  /** Vector instructions the CPU kernels use here: `avx512`, `avx2` or `generic`. */
  cpuKernels: string;
}

export interface NativeEngine {
  info(): EngineInfo;
  open(options: OpenOptions): Promise<NativeEncoder>;
}
