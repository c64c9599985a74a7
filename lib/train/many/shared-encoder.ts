import { PeftTrainError } from "../../errors.js";
import type {
  AdapterInfo,
  AdapterSpec,
  EncodeOptions,
  EncoderInfo,
  EngineInfo,
  ExampleBatch,
  GradientResult,
  InputSite,
  MemoryPlan,
  NativeEncoder,
  NativeEngine,
  OpenOptions,
  PassOptions,
  QuantizeReport,
  StepOptions,
  StepResult,
  TokenBatch,
} from "../../native/types.js";

/**
 * One encoder that several runs train an adapter of their own on. The base is loaded once, when every run that is still there has
 * said what it needs; calls are then served one after the other in the order in which they come, so that runs take turns
 * step by step.
 */
export class SharedEncoder {
  private readonly asked = new Map<string, OpenOptions>();
  private readonly waiting: (() => void)[] = [];
  private readonly expected: Set<string>;
  private encoder: Promise<NativeEncoder> | undefined;
  private running: Promise<unknown> = Promise.resolve();
  private open = 0;
  private aborted = false;

  constructor(
    private readonly engine: () => NativeEngine | Promise<NativeEngine>,
    /** Of the runs that are to share it. */
    names: readonly string[],
  ) {
    this.expected = new Set(names);
  }

  /** The engine of one run: its `open` gives a view of the one encoder, in which the run's adapter is the only one. */
  async engineOf(name: string): Promise<NativeEngine> {
    const engine = await this.engine();
    return {
      info: (): EngineInfo => engine.info(),
      open: (options) => this.openFor(name, options, engine),
      quantize: (): Promise<QuantizeReport> => Promise.reject(new Error("a run quantises no file")),
    };
  }

  /** A run that ended before it opened the encoder is not waited for. */
  leave(name: string): void {
    if (this.asked.has(name)) return;
    this.expected.delete(name);
    this.wakeIfComplete();
  }

  /** No run opens the encoder any more: those that wait for the others end with ABORTED. */
  abort(): void {
    this.aborted = true;
    for (const wake of this.waiting.splice(0)) wake();
  }

  private async openFor(name: string, options: OpenOptions, engine: NativeEngine): Promise<NativeEncoder> {
    if (options.trainable) {
      throw new PeftTrainError("USAGE", "--no-use_peft trains the base itself, which tenants share", {
        hint: "Train that model by a run of its own.",
      });
    }
    this.asked.set(name, options);
    this.wakeIfComplete();
    if (!this.isComplete) await new Promise<void>((resolve) => this.waiting.push(resolve));
    this.requireSame(name);
    this.open++;
    try {
      this.encoder ??= engine.open(options);
      const native = await this.encoder;
      const info = await this.exclusive(async () => native.info());
      const exclusive: Exclusive = (work) => this.exclusive(work);
      return new SharedView(name, native, info, exclusive, () => this.leaveOpen());
    } catch (error) {
      this.open--;
      throw error;
    }
  }

  private get isComplete(): boolean {
    return this.asked.size >= this.expected.size || this.aborted;
  }

  private wakeIfComplete(): void {
    if (!this.isComplete) return;
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** @throws USAGE for a run with another base than the first; ABORTED for the others where there is such a run. */
  private requireSame(name: string): void {
    const [first = name, ...others] = [...this.expected].filter((run) => this.asked.has(run));
    const difference = differenceOf(this.asked.get(first), this.asked.get(name));
    if (difference !== undefined) {
      throw new PeftTrainError("USAGE", `it needs another base than ${first}: ${difference}`, {
        hint: "Tenants share one base model, held in one way on one device; set those options once for all.",
      });
    }
    if (others.some((run) => differenceOf(this.asked.get(first), this.asked.get(run)) !== undefined))
      this.abort();
    if (!this.aborted) return;
    throw new PeftTrainError("ABORTED", "stopped before training began: another tenant cannot begin");
  }

  private async leaveOpen(): Promise<void> {
    if (--this.open === 0) await this.exclusive(async () => (await this.encoder)?.close());
  }

  private exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.running.then(work);
    this.running = result.catch(() => {});
    return result;
  }
}

/** In words; undefined where there is none. */
function differenceOf(expected: OpenOptions | undefined, found: OpenOptions | undefined): string | undefined {
  const keys = new Set(Object.keys({ ...expected, ...found })) as Set<keyof OpenOptions>;
  for (const key of keys) {
    const [a, b] = [expected?.[key], found?.[key]].map((value) => JSON.stringify(value) ?? "none");
    if (a !== b) return `${key} is ${b} here, and ${a} there`;
  }
  return undefined;
}

function notTrainable(): Promise<never> {
  return Promise.reject(new Error("the base that runs share is not trained"));
}

type Exclusive = <T>(work: () => Promise<T>) => Promise<T>;

/** The shared encoder as one run sees it: with one adapter, its own. */
class SharedView implements NativeEncoder {
  private parameters = 0;
  /** For micro-batches of one token; activations are proportional to the tokens. */
  private plan: { training: MemoryPlan; encoding: MemoryPlan } | undefined;
  private closed = false;

  constructor(
    private readonly name: string,
    private readonly native: NativeEncoder,
    private readonly base: EncoderInfo,
    private readonly exclusive: Exclusive,
    private readonly leave: () => Promise<void>,
  ) {}

  info(): EncoderInfo {
    return { ...this.base, trainableParameters: this.parameters };
  }

  adapters(): AdapterInfo[] {
    throw new Error("a run asks for no list of adapters");
  }

  memory(microBatchTokens: number, training: boolean): MemoryPlan {
    if (this.plan === undefined) throw new Error("memory is known once there is an adapter");
    const plan = training ? this.plan.training : this.plan.encoding;
    return { ...plan, activations: plan.activations * microBatchTokens };
  }

  createAdapter(spec: AdapterSpec, seed: number): Promise<void> {
    return this.install(() => this.native.createAdapter(spec, seed, this.name));
  }

  loadAdapter(path: string, spec: AdapterSpec): Promise<void> {
    return this.install(() => this.native.loadAdapter(path, spec, this.name));
  }

  /** Plans are taken down in the same turn: the encoder cannot be asked while another run's call is in it. */
  private install(load: () => Promise<void>): Promise<void> {
    const { name, native } = this;
    return this.exclusive(async () => {
      await load();
      this.parameters = native.adapters().find((adapter) => adapter.name === name)?.parameters ?? 0;
      this.plan = { training: native.memory(1, true, name), encoding: native.memory(1, false, name) };
    });
  }

  saveAdapter(path: string): Promise<void> {
    return this.exclusive(() => this.native.saveAdapter(path, this.name));
  }

  saveOptimizer(path: string): Promise<void> {
    return this.exclusive(() => this.native.saveOptimizer(path, this.name));
  }

  loadOptimizer(path: string): Promise<void> {
    return this.exclusive(() => this.native.loadOptimizer(path, this.name));
  }

  removeAdapter(): Promise<void> {
    return this.exclusive(() => this.native.removeAdapter(this.name));
  }

  step(batch: ExampleBatch, options: StepOptions): Promise<StepResult> {
    return this.exclusive(() => this.native.step(batch, { ...options, adapter: this.name }));
  }

  queueStep(batch: ExampleBatch, options: StepOptions): Promise<void> {
    return this.exclusive(() => this.native.queueStep(batch, { ...options, adapter: this.name }));
  }

  stepResults(): Promise<StepResult[]> {
    return this.exclusive(() => this.native.stepResults(this.name));
  }

  gradients(batch: ExampleBatch, options: PassOptions): Promise<GradientResult> {
    return this.exclusive(() => this.native.gradients(batch, { ...options, adapter: this.name }));
  }

  encode(batch: TokenBatch, options: EncodeOptions): Promise<Float32Array> {
    const adapter = options.adapter === false ? false : this.name;
    return this.exclusive(() => this.native.encode(batch, { ...options, adapter }));
  }

  inputComponents(
    batch: TokenBatch,
    sites: readonly InputSite[],
    microBatchTokens: number,
  ): Promise<Record<string, Float32Array>> {
    return this.exclusive(() => this.native.inputComponents(batch, sites, microBatchTokens));
  }

  adapterWeights(): Promise<Record<string, Float32Array>> {
    return this.exclusive(() => this.native.adapterWeights(this.name));
  }

  mergeAdapter(): Promise<never> {
    return Promise.reject(new Error("an adapter that trains is not merged"));
  }

  saveModel(): Promise<never> {
    return notTrainable();
  }

  loadModel(): Promise<never> {
    return notTrainable();
  }

  modelWeights(): Promise<never> {
    return notTrainable();
  }

  /** Frees this run's adapter; the base with the last run. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.removeAdapter();
    await this.leave();
  }
}
