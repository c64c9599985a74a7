import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { PeftTrainError } from "../../lib/errors.js";
import type {
  AdapterSpec,
  ExampleBatch,
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
  readonly encoded: { batch: TokenBatch; adapter: boolean }[] = [];
  opened: OpenOptions | undefined;
  readonly quantized: QuantizeOptions[] = [];
  spec: AdapterSpec | undefined;
  seed: number | undefined;
  closed = 0;
  /** Called with the number of the step, from 0; may throw or return a result of its own. */
  onStep: (step: number) => StepResult | undefined = () => undefined;

  /** Called with the path of every file of tensors before it is written; may throw. */
  onSave: (path: string) => void = () => undefined;

  info() {
    return {
      engineVersion: "fake",
      torchVersion: "0.0.0",
      cudaDevices: 0,
      cpuKernels: "generic",
      fastBfloat16: false,
    };
  }

  async open(options: OpenOptions): Promise<NativeEncoder> {
    this.opened = options;
    return new FakeEncoder(this, options.shape.hiddenSize, options.trainable === true);
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

class FakeEncoder implements NativeEncoder {
  private trained = 0;
  private moments = 0;
  private trainable = 0;

  constructor(
    private readonly engine: FakeEngine,
    private readonly dim: number,
    trainable = false,
  ) {
    if (trainable) this.trainable = 33_000_000;
  }

  info() {
    const { trainable } = this;
    return {
      device: "cpu",
      threads: 1,
      baseParameters: 33_360_000,
      trainableParameters: trainable,
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

  async createAdapter(spec: AdapterSpec, seed: number): Promise<void> {
    this.install(spec);
    this.engine.seed = seed;
    this.trained = 0;
    this.moments = 0;
  }

  async loadAdapter(path: string, spec: AdapterSpec): Promise<void> {
    this.install(spec);
    const bytes = readFileSync(path);
    this.trained = bytes.readFloatLE(bytes.length - 4);
    this.moments = 0;
  }

  async saveOptimizer(path: string): Promise<void> {
    this.engine.onSave(path);
    writeFileSync(path, String(this.moments));
  }

  async loadOptimizer(path: string): Promise<void> {
    this.moments = Number(readFileSync(path, "utf8"));
  }

  private install(spec: AdapterSpec): void {
    this.engine.spec = spec;
    this.trainable = spec.modules.reduce((sum, { rank }) => sum + 2 * rank * this.dim, 0);
  }

  async saveAdapter(path: string): Promise<void> {
    this.engine.onSave(path);
    const header = Buffer.from(
      JSON.stringify({ trained: { dtype: "F32", shape: [1], data_offsets: [0, 4] } }),
    );
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const data = Buffer.alloc(4);
    data.writeFloatLE(this.trained);
    writeFileSync(path, Buffer.concat([length, header, data]));
  }

  async removeAdapter(): Promise<void> {}

  async saveModel(path: string): Promise<void> {
    return this.saveAdapter(path);
  }

  async loadModel(path: string): Promise<void> {
    const bytes = readFileSync(path);
    this.trained = bytes.readFloatLE(bytes.length - 4);
    this.moments = 0;
  }

  async modelWeights(): Promise<Record<string, Float32Array>> {
    return this.adapterWeights();
  }

  async step(batch: ExampleBatch, options: StepOptions): Promise<StepResult> {
    this.engine.steps.push({ batch, options });
    const result = this.engine.onStep(options.step);
    // As with Adam, moments that were lost change what is trained.
    this.trained += ++this.moments === options.step + 1 ? 1 : 100;
    return result ?? { loss: 1 / this.trained, gradNorm: 0.5 };
  }

  async gradients(): Promise<never> {
    throw new Error("not faked");
  }

  async encode(batch: TokenBatch, options: { adapter: boolean }): Promise<Float32Array> {
    this.engine.encoded.push({ batch, adapter: options.adapter });
    const count = batch.cuSeqlens.length - 1;
    const out = new Float32Array(count * this.dim);
    for (let i = 0; i < count; i++) {
      const ids = batch.ids.subarray(batch.cuSeqlens[i], batch.cuSeqlens[i + 1]);
      const row = out.subarray(i * this.dim, (i + 1) * this.dim);
      for (const id of ids) {
        const random = mulberry32(id);
        for (let j = 0; j < this.dim; j++) row[j] = (row[j] as number) + random() - 0.5;
      }
      const norm = Math.hypot(...row) || 1;
      for (let j = 0; j < this.dim; j++) row[j] = (row[j] as number) / norm;
    }
    return out;
  }

  async adapterWeights(): Promise<Record<string, Float32Array>> {
    return { trained: Float32Array.of(this.trained) };
  }

  async close(): Promise<void> {
    this.engine.closed++;
  }
}
