import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { PeftTrainError } from "../../lib/errors.js";
import type {
  AdapterChoice,
  AdapterInfo,
  AdapterSpec,
  EncodeOptions,
  ExampleBatch,
  MergeInfo,
  NativeEncoder,
  NativeEngine,
  OpenOptions,
  QuantizeOptions,
  QuantizeReport,
  StepOptions,
  StepResult,
  TokenBatch,
} from "../../lib/native/types.js";
import { mulberry32 } from "./tiny-model.js";

/**
 * An engine without libtorch, for tests of the loop around it: a text's vector is the mean of random token vectors,
 * and every step draws both texts of a positive pair a little nearer by scaling one shared direction down.
 */
export class FakeEngine implements NativeEngine {
  readonly steps: { batch: ExampleBatch; options: StepOptions }[] = [];
  readonly encoded: ({ batch: TokenBatch } & AdapterChoice)[] = [];
  /** Whether an adapter that is named changes the vectors of its texts. */
  adaptersTurn = false;
  opened: OpenOptions | undefined;
  readonly quantized: QuantizeOptions[] = [];
  spec: AdapterSpec | undefined;
  seed: number | undefined;
  closed = 0;
  /** Of every encoder. */
  device = "cpu";
  /** What the processor has, as `info` tells it. */
  processor = { cpuKernels: "generic", fastBfloat16: false };
  /** How many steps each call of `stepResults` told. */
  readonly told: number[] = [];
  /** Called with the number of the step, from 0; may throw or return a result of its own. */
  onStep: (step: number) => StepResult | undefined = () => undefined;

  /** The adapters of the encoder that was opened last. */
  held: () => AdapterInfo[] = () => [];
  readonly merges: { name: string; merged: string; exact: boolean }[] = [];
  /** Merging an adapter changes its vectors unless this is 0. */
  mergeMoves = 0;

  /** Called with the path of every file of tensors before it is written; may throw. */
  onSave: (path: string) => void = () => undefined;

  info() {
    return {
      engineVersion: "fake",
      torchVersion: "0.0.0",
      cudaDevices: 0,
      ...this.processor,
    };
  }

  async open(options: OpenOptions): Promise<NativeEncoder> {
    this.opened = options;
    const encoder = new FakeEncoder(this, options.shape.hiddenSize, options.trainable === true);
    this.held = () => encoder.adapters();
    return encoder;
  }

  /** Writes the source as it is. */
  async quantize(
    options: QuantizeOptions,
    onProgress?: (done: number, total: number) => boolean,
  ): Promise<QuantizeReport> {
    this.quantized.push(options);
    copyFileSync(options.weightsPath, options.output);
    for (const done of [1, 2])
      if (onProgress?.(done, 2) === false) throw new PeftTrainError("ABORTED", "stopped");
    return {
      tensors: 2,
      parameters: 1000,
      sourceBytes: 4000,
      bytes: 563,
      outliers: 0,
      leftOut: 0,
      meanSquaredError: 1e-6,
      relativeError: 0.0931,
    };
  }
}

interface FakeAdapter {
  trained: number;
  moments: number;
  parameters: number;
  mergedFrom?: string;
  queued: StepResult[];
}

class FakeEncoder implements NativeEncoder {
  private readonly loaded = new Map<string, FakeAdapter>();

  constructor(
    private readonly engine: FakeEngine,
    private readonly dim: number,
    trainable = false,
  ) {
    // The model itself, under the name of the one adapter.
    if (trainable) this.loaded.set("default", { trained: 0, moments: 0, parameters: 33_000_000, queued: [] });
  }

  info() {
    return {
      device: this.engine.device,
      threads: 1,
      baseParameters: 33_360_000,
      trainableParameters: this.adapters().reduce((sum, { parameters }) => sum + parameters, 0),
      frozenBytes: 1,
    };
  }

  memory(microBatchTokens: number, training: boolean) {
    return {
      linear: 600,
      embeddings: 200,
      other: 10,
      adapter: 40,
      optimizer: 80,
      activations: training ? 100 * microBatchTokens : microBatchTokens,
      float32Weights: 5000,
    };
  }

  adapters(): AdapterInfo[] {
    return [...this.loaded]
      .map(([name, { parameters, mergedFrom }]) =>
        mergedFrom === undefined
          ? { name, parameters, bytes: 4 * parameters }
          : { name, parameters: 0, bytes: 4000, mergedFrom },
      )
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async createAdapter(spec: AdapterSpec, seed: number, name = "default"): Promise<void> {
    this.engine.seed = seed;
    this.install(name, spec, 0);
  }

  async loadAdapter(path: string, spec: AdapterSpec, name = "default"): Promise<void> {
    const bytes = readFileSync(path);
    this.install(name, spec, bytes.readFloatLE(bytes.length - 4));
  }

  async mergeAdapter(name: string, merged: string, exact: boolean): Promise<MergeInfo> {
    this.engine.merges.push({ name, merged, exact });
    const from = this.adapter(name);
    const moved = exact ? 0 : this.engine.mergeMoves;
    this.loaded.set(merged, { ...from, trained: from.trained + moved, mergedFrom: name });
    return { modules: 2, bytes: 4000 };
  }

  async saveOptimizer(path: string, name = "default"): Promise<void> {
    this.engine.onSave(path);
    writeFileSync(path, String(this.adapter(name).moments));
  }

  async loadOptimizer(path: string, name = "default"): Promise<void> {
    this.adapter(name).moments = Number(readFileSync(path, "utf8"));
  }

  private install(name: string, spec: AdapterSpec, trained: number): void {
    this.engine.spec = spec;
    const parameters = spec.modules.reduce((sum, { rank }) => sum + 2 * rank * this.dim, 0);
    this.loaded.set(name, { trained, moments: 0, parameters, queued: [] });
  }

  private adapter(name: string): FakeAdapter {
    const adapter = this.loaded.get(name);
    if (adapter === undefined) throw new PeftTrainError("USAGE", `no adapter "${name}" is loaded`);
    return adapter;
  }

  async saveAdapter(path: string, name = "default"): Promise<void> {
    this.engine.onSave(path);
    const header = Buffer.from(
      JSON.stringify({ trained: { dtype: "F32", shape: [1], data_offsets: [0, 4] } }),
    );
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const data = Buffer.alloc(4);
    data.writeFloatLE(this.adapter(name).trained);
    writeFileSync(path, Buffer.concat([length, header, data]));
  }

  async removeAdapter(name = "default"): Promise<void> {
    this.loaded.delete(name);
    for (const [other, { mergedFrom }] of this.loaded) if (mergedFrom === name) this.loaded.delete(other);
  }

  async saveModel(path: string): Promise<void> {
    return this.saveAdapter(path);
  }

  async loadModel(path: string): Promise<void> {
    const bytes = readFileSync(path);
    const parameters = this.adapter("default").parameters;
    const trained = bytes.readFloatLE(bytes.length - 4);
    this.loaded.set("default", { trained, moments: 0, parameters, queued: [] });
  }

  async modelWeights(): Promise<Record<string, Float32Array>> {
    return this.adapterWeights();
  }

  async step(batch: ExampleBatch, options: StepOptions): Promise<StepResult> {
    const adapter = this.adapter(options.adapter ?? "default");
    this.engine.steps.push({ batch, options });
    const result = this.engine.onStep(options.step);
    // As with Adam, moments that were lost change what is trained.
    adapter.trained += ++adapter.moments === options.step + 1 ? 1 : 100;
    return result ?? { loss: 1 / adapter.trained, gradNorm: 0.5 };
  }

  async queueStep(batch: ExampleBatch, options: StepOptions): Promise<void> {
    this.adapter(options.adapter ?? "default").queued.push(await this.step(batch, options));
  }

  async stepResults(name = "default"): Promise<StepResult[]> {
    const results = this.adapter(name).queued.splice(0);
    const bad = results.findIndex(({ loss, gradNorm }) => !Number.isFinite(loss + gradNorm));
    const told = bad < 0 ? results : results.slice(0, bad + 1);
    this.engine.told.push(told.length);
    return told;
  }

  async gradients(): Promise<never> {
    throw new Error("not faked");
  }

  async encode(batch: TokenBatch, options: EncodeOptions): Promise<Float32Array> {
    const { adapter, adapters, adapterOfText } = options;
    this.engine.encoded.push({ batch, adapter, ...(adapterOfText && { adapters, adapterOfText }) });
    const count = batch.cuSeqlens.length - 1;
    const out = new Float32Array(count * this.dim);
    for (let i = 0; i < count; i++) {
      const place = adapterOfText?.[i] ?? 0;
      const name = adapterOfText === undefined ? adapter : place < 0 ? false : adapters?.[place];
      if (typeof name === "string") this.adapter(name);
      // An adapter counts as one more token.
      const turn =
        typeof name === "string" && this.engine.adaptersTurn ? [1000 + this.adapter(name).trained] : [];
      const ids = batch.ids.subarray(batch.cuSeqlens[i], batch.cuSeqlens[i + 1]);
      const row = out.subarray(i * this.dim, (i + 1) * this.dim);
      for (const id of [...ids, ...turn]) {
        const random = mulberry32(id);
        for (let j = 0; j < this.dim; j++) row[j] = (row[j] as number) + random() - 0.5;
      }
      const norm = Math.hypot(...row) || 1;
      for (let j = 0; j < this.dim; j++) row[j] = (row[j] as number) / norm;
    }
    return out;
  }

  async inputComponents(): Promise<never> {
    throw new Error("not faked");
  }

  async adapterWeights(name = "default"): Promise<Record<string, Float32Array>> {
    return { trained: Float32Array.of(this.adapter(name).trained) };
  }

  async close(): Promise<void> {
    this.engine.closed++;
  }
}
