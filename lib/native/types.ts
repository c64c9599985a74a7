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

/** How the vectors of a text's tokens become one: their mean, or the first. */
export type Pooling = "mean" | "cls";

/** How the numbers of a frozen matrix are held. */
export type WeightFormat = "float32" | "float16" | "bfloat16" | "int8" | "nf4" | "fp4";

/** How the frozen linear weights are held. Word embeddings are bfloat16 beside bfloat16, float32 beside float32, else float16. */
export interface WeightStorage {
  /** How a number is held. */
  format: WeightFormat;
  /** Weights that share one absmax, 4-bit only: a power of two, 32 to 4096. */
  blockSize: number;
  /** absmax itself in 8 bits, 4-bit only. */
  doubleQuant: boolean;
  /** Share of the weights kept in float16 beside the codes, 4-bit only: 0 to 0.1. */
  outlierFraction: number;
  /** int8: entries of x that reach this magnitude go through float16; 0 turns that off. */
  outlierThreshold: number;
  /** int8: the input gradient is multiplied in int8 too, for which the weights are held a second time. Default: false. */
  int8Gradient?: boolean;
  /** What both operands of the frozen products are rounded to; sums are float32. For weights without codes. Default: neither. */
  products?: "float16" | "bfloat16";
}

export interface OpenOptions {
  /** Absolute path of a model.safetensors. */
  weightsPath: string;
  shape: ModelShape;
  pooling: Pooling;
  /** `cpu`, `cuda` or `cuda:N`. */
  device: string;
  /** Threads of the matrix products; 0 takes the number of physical cores. */
  threads: number;
  /**
   * Without it the weights stay as the file has them. A file that is quantised already must be of this format; its
   * block size, double quantisation and outliers are its own.
   */
  storage?: WeightStorage;
  /** Backward runs every layer's forward again instead of keeping what it computed. Default: false. */
  activationCheckpointing?: boolean;
  /**
   * All parameters of the model train, but its pooler's: `step` and `gradients` need no adapter, and none is taken. The weights must
   * be plain numbers; they are held in float32, with packed copies for the products, that `storage.products` may round. Default: false.
   */
  trainable?: boolean;
}

/** One linear layer that LoRA wraps: y = W x + b + scale * B(A(dropout(x))). */
export interface LoraModule {
  /** Full module name inside BertModel, such as `encoder.layer.0.attention.self.query`. */
  name: string;
  rank: number;
  /** alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  scale: number;
}

/** A parameter of the base model of which an adapter has its own: PEFT's modules_to_save and bias. */
export interface OwnParameter {
  /** In BertModel: `encoder.layer.0.output.LayerNorm.bias`. */
  name: string;
  /** In the adapter's file. */
  key: string;
}

export interface AdapterSpec {
  modules: LoraModule[];
  /** A fresh adapter begins with those of the base model. Query, key and value are one matrix: all of them or none. */
  parameters?: OwnParameter[];
  /** Rate of the dropout on x before A, while training. */
  dropout: number;
  /** How a fresh one begins. Default: kaiming. */
  init?: AdapterInit;
  /** A magnitude m for every output: y = b + m / |W + scale * B A| (W x + scale * B(A x)), the norm being no part of the gradient. */
  dora?: boolean;
  /** A bias on B: scale * (B(A x) + bias). */
  bias?: boolean;
  /** A of modules of a fresh adapter, by their names, [rank, inputs], in place of what `init` draws. */
  a?: Record<string, Float32Array>;
}

/** What goes into a matrix of a layer, and how many of its principal components are wanted. Query, key and value read the same. */
export interface InputSite {
  layer: number;
  matrix: "qkv" | "attentionOutput" | "intermediate" | "output";
  count: number;
}

/**
 * `kaiming`: A from U(-1/sqrt(in), 1/sqrt(in)), B zero. `uniform`: B from U(-1/sqrt(rank), 1/sqrt(rank)). `gaussian`: A from
 * N(0, 1/rank^2), B zero. `orthogonal`: A and B with B A = 0, of an even rank. As PEFT's init_lora_weights true, false,
 * gaussian and orthogonal.
 *
 * `pissa`: A and B hold the first singular values of W, `olora` the first rows of R and columns of Q of W = Q R; the
 * adapter then runs over what is left, W - scale * B0 A0. It is saved as plain LoRA over W, [A; A0] and [B, -B0] of twice the
 * rank; a file of the rank itself is taken for PEFT's, and A0 and B0 are found again. `loftq`: scale * B A is the best of
 * its rank for what quantising W has lost; needs a file of plain weights.
 */
export interface AdapterInit {
  kind: "kaiming" | "uniform" | "gaussian" | "orthogonal" | "pissa" | "olora" | "loftq";
  /** Of pissa: subspace iterations of a randomised decomposition, in place of an exact one. */
  iterations?: number;
}

/** Texts as packed token ids: text i is `ids[cuSeqlens[i] .. cuSeqlens[i + 1])`. No padding anywhere. */
export interface TokenBatch {
  ids: Int32Array;
  /** Cumulative lengths, one more entry than there are texts; starts with 0. */
  cuSeqlens: Int32Array;
}

/** Texts k i to k i + k - 1 are example i: one text, a pair, or an anchor, its positive and its negatives; those that are fixed left out. */
export interface ExampleBatch extends TokenBatch {
  /**
   * One an example (1 for the same meaning, 0 for another; or a score), for mse a vector of `hiddenSize` an example, or none where
   * the loss needs none.
   */
  labels: Float32Array;
  /** With those that are fixed. */
  textsPerExample: number;
  fixed?: FixedTexts;
  kept?: KeptTexts;
}

/** Texts that come as vectors, at the same places of every example: they are not encoded, and get no gradient. */
export interface FixedTexts {
  /** The first of these places, from 0, and how many follow one another. */
  first: number;
  count: number;
  /** [examples, count, hiddenSize] */
  vectors: Float32Array;
}

/** Texts to leave where they are: weight * (1 - cosine to their vector), in the mean and without dropout, is added to the loss. */
export interface KeptTexts extends TokenBatch {
  /** [texts, hiddenSize], of length 1. */
  vectors: Float32Array;
  weight: number;
}

export type LossName =
  | "pair"
  | "contrastive"
  | "online_contrastive"
  | "cosine_similarity"
  | "cosent"
  | "angle"
  | "triplet"
  | "multiple_negatives_ranking"
  | "mse";

export type Distance = "cosine" | "euclidean" | "manhattan";

/** What training minimises, of vectors scaled to length 1. docs/losses.md has the formulas. */
export interface LossSpec {
  name: LossName;
  /** Of contrastive, online_contrastive and triplet. */
  distance?: Distance;
  margin?: number;
  /** Of cosent, angle and multiple_negatives_ranking. */
  scale?: number;
  /** Widths that vectors are cut to, and what the loss at each counts; without it, whole vectors alone. */
  matryoshka?: { dims: number; weight: number }[];
}

export interface DropoutKey {
  /** Seed of the run. */
  seed: number;
  /** Number of the optimiser step, from 0: masks depend on seed, step, layer and position alone. */
  step: number;
}

export interface PassOptions extends DropoutKey {
  /** Name of the adapter that is trained. Default: `default`. */
  adapter?: string;
  /** Examples are run through the encoder in groups of about this many tokens; the gradient is the whole batch's. */
  microBatchTokens: number;
  /** Default: the pair loss. */
  loss?: LossSpec;
}

export interface StepOptions extends PassOptions {
  learningRate: number;
  /** Decoupled (AdamW) decay; 0 gives Adam. */
  weightDecay: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  /** Clip the global gradient norm to this; 0 leaves gradients alone. */
  maxGradNorm: number;
  /**
   * What the loss is multiplied with for backward, so that small gradients stay within float16's range; the gradients of what trains are
   * divided by it again. With it a gradient that is not finite leaves everything as it was and is told by `notFinite`.
   */
  lossScale?: number;
}

export interface StepResult {
  /** Loss of the batch. */
  loss: number;
  /** Global L2 norm of the gradients before clipping. */
  gradNorm: number;
  /** With `lossScale`: the first tensor whose gradient was not finite. Nothing was changed then. */
  notFinite?: string;
}

export interface GradientResult {
  loss: number;
  /** Keyed as the file of what trains is, each flattened row-major. */
  gradients: Record<string, Float32Array>;
}

/**
 * Which adapter each text is encoded with. A text's numbers are those that it has when it is encoded alone, to the bit, whatever
 * adapters the other texts of the call have.
 */
export interface AdapterChoice {
  /**
   * Of all texts: the name of one; true for `default`, where that is loaded; false for the embeddings of the untouched base model.
   * Not read where `adapterOfText` is there.
   */
  adapter: boolean | string;
  /** Names that `adapterOfText` counts. Only those that occur need be loaded. */
  adapters?: readonly string[] | undefined;
  /** One entry a text: its place in `adapters`, or -1 for the base model. */
  adapterOfText?: Int32Array;
}

export interface EncodeOptions extends AdapterChoice {
  /** L2-normalise the pooled vectors. */
  normalize: boolean;
  microBatchTokens: number;
}

/** What an encoder runs on, and how large it is. */
export interface EncoderInfo {
  /** `cpu`, or `cuda:N`. */
  device: string;
  /** Of the matrix products. */
  threads: number;
  /** Parameters of the base model as Python counts them, pooler included where the file has one. */
  baseParameters: number;
  /** Of all adapters. */
  trainableParameters: number;
  /** Bytes of the weights that do not train, as they are held. */
  frozenBytes: number;
}

/** An adapter that is loaded. */
export interface AdapterInfo {
  name: string;
  parameters: number;
  /**
   * What it takes as it stands, without Adam's moments: weights, what is packed of them, and gradients once it was trained. Of what
   * `mergeAdapter` made, the merged weights.
   */
  bytes: number;
  /** The adapter that is merged here. */
  mergedFrom?: string;
}

/** What merging has made. */
export interface MergeInfo {
  /** LoRA modules that are in the merged weights. */
  modules: number;
  /** What those take. */
  bytes: number;
}

/** What a run takes, in bytes, beside libtorch itself. */
export interface MemoryPlan {
  /** Frozen matrices, with the packed copies that training in float32 makes; of a model that trains itself, the copies alone. */
  linear: number;
  /** Tables of words, positions and token types. */
  embeddings: number;
  /** Biases and LayerNorms. */
  other: number;
  /** LoRA weights, what is packed of them, their gradients, and weights with one merged in, of all adapters; or all that trains, and its gradients. */
  adapter: number;
  /** Adam's two moments. */
  optimizer: number;
  /** What a micro-batch keeps between forward and backward, and buffers. */
  activations: number;
  /** The frozen weights, were they float32 and kept once. */
  float32Weights: number;
}

/** Holds any number of adapters over one copy of the base. Where a name may be left out it is `default`, as in PEFT. */
export interface NativeEncoder {
  info(): EncoderInfo;
  /** Those that are loaded, in the order of their names. */
  adapters(): AdapterInfo[];
  /** For micro-batches of this many tokens, to which `activations` is proportional; with a name, as if that adapter were the only one. */
  memory(microBatchTokens: number, training: boolean, name?: string): MemoryPlan;
  /** Installs a fresh adapter that begins as `spec.init` says, drawn from `seed`; Adam state zero. */
  createAdapter(spec: AdapterSpec, seed: number, name?: string): Promise<void>;
  /**
   * Installs the adapter of a file; every key of `spec` must be there, and no other. One that has the name already is replaced once
   * the new one is complete: where this rejects, the old one is as it was.
   */
  loadAdapter(path: string, spec: AdapterSpec, name?: string): Promise<void>;
  /** Writes adapter_model.safetensors to `path` and syncs it. */
  saveAdapter(path: string, name?: string): Promise<void>;
  /** Writes Adam's moments and step count to `path` as safetensors and syncs it. */
  saveOptimizer(path: string, name?: string): Promise<void>;
  /** Restores them for the adapter that is installed, or the model that trains, to the bit. */
  loadOptimizer(path: string, name?: string): Promise<void>;
  /**
   * Puts the adapter `name` into second copies of the frozen matrices that it changes, held as those are or, with `exact`, in float32.
   * Texts whose adapter is `merged` are encoded with them; all others stay what they were. What is merged takes no training under
   * either name, and goes when the adapter does.
   */
  mergeAdapter(name: string, merged: string, exact: boolean): Promise<MergeInfo>;
  /** Nothing happens where there is none of the name. */
  removeAdapter(name?: string): Promise<void>;
  /** Forward, backward and one Adam step over the whole batch. */
  step(batch: ExampleBatch, options: StepOptions): Promise<StepResult>;
  /**
   * The same, asked of a GPU without waiting for it; `stepResults` tells what it came to. A step that is not finite leaves
   * everything as it was, and so do all of the same adapter that were queued after it. Without `lossScale`.
   */
  queueStep(batch: ExampleBatch, options: StepOptions): Promise<void>;
  /** Of the steps queued for an adapter since the last call, in order, up to the first that is not finite, with that. */
  stepResults(name?: string): Promise<StepResult[]>;
  /** Forward and backward only: what `step` would feed to Adam, unclipped. */
  gradients(batch: ExampleBatch, options: PassOptions): Promise<GradientResult>;
  /** One row of `hiddenSize` floats a text, in input order. */
  encode(batch: TokenBatch, options: EncodeOptions): Promise<Float32Array>;
  /**
   * Principal components of what goes into matrices of the base model, over all tokens of the texts: `<layer>.<matrix>.components`
   * [count, inputs], of length 1, the largest variance first, and `<layer>.<matrix>.ratios` [count], their parts of the whole variance.
   */
  inputComponents(
    batch: TokenBatch,
    sites: readonly InputSite[],
    microBatchTokens: number,
  ): Promise<Record<string, Float32Array>>;
  /** Adapter weights as they stand, keyed as the adapter file is. */
  adapterWeights(name?: string): Promise<Record<string, Float32Array>>;
  /** Of a trainable model: writes a model.safetensors with every tensor that its own has, in float32, and syncs it. */
  saveModel(path: string): Promise<void>;
  /** Restores what `saveModel` wrote, to the bit. */
  loadModel(path: string): Promise<void>;
  /** The parameters that train as they stand, keyed as the model's file is. */
  modelWeights(): Promise<Record<string, Float32Array>>;
  /** Frees the model. Waits for a running call; safe to call twice. */
  close(): Promise<void>;
}

export interface EngineInfo {
  engineVersion: string;
  torchVersion: string;
  cudaDevices: number;
  /**
   * Vector instructions the CPU kernels use here: `avx512`, `avx2-vnni`, `avx2` or `generic`; with `-paired` where float32 is
   * multiplied in pairs, as on AMD's processors.
   */
  cpuKernels: string;
  /** Whether the processor multiplies bfloat16 itself. */
  fastBfloat16: boolean;
  /** Why a libtorch for CUDA was loaded without its CUDA half. */
  noCuda?: string;
}

/** What libcuda.so.1, the driver's own library, says without libtorch. */
export interface CudaDriver {
  /** The newest CUDA that it runs, as 13000 for 13.0. */
  version?: number;
  /** Memory in bytes, compute capability as "8.9". */
  devices?: { name: string; memory: number; capability: string }[];
  /** In place of the devices. */
  error?: string;
}

export interface QuantizeOptions {
  /** Absolute path of a model.safetensors. */
  weightsPath: string;
  /** Absolute path of the file to write. */
  output: string;
  shape: ModelShape;
  /** Of format int8, nf4 or fp4. */
  storage: WeightStorage;
}

/** What quantising has done to the matrices of a model. */
export interface QuantizeReport {
  /** Matrices that were quantised, the weights in them, and their bytes before and after. */
  tensors: number;
  /** Weights in these matrices. */
  parameters: number;
  /** Bytes of the matrices before. */
  sourceBytes: number;
  /** Bytes of codes, scales and outliers after. */
  bytes: number;
  /** Weights kept in float16. */
  outliers: number;
  /** Tensors of encoder layers beyond those that config.json counts: loading skips them, and so does the copy. */
  leftOut: number;
  /** Mean of (W - W')^2 over all these weights. */
  meanSquaredError: number;
  /** |W - W'| / |W|, Frobenius norms over all matrices. */
  relativeError: number;
}

export interface NativeEngine {
  info(): EngineInfo;
  open(options: OpenOptions): Promise<NativeEncoder>;
  /**
   * Writes a quantised model.safetensors in the layout of transformers and bitsandbytes; leaves no file if it fails.
   * `onProgress` is told of every matrix and ends the work, which rejects with ABORTED, by returning false.
   */
  quantize(
    options: QuantizeOptions,
    onProgress?: (done: number, total: number) => boolean,
  ): Promise<QuantizeReport>;
}
