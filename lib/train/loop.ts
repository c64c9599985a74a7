import type { AdapterContent } from "../adapter/folder.js";
import { epochOrder, exampleBatch } from "../data/batch.js";
import { PeftTrainError } from "../errors.js";
import type { NativeEncoder, StepResult } from "../native/types.js";
import { adapterContent } from "./adapter-content.js";
import { type EvalMetrics, evaluateExamples } from "./evaluate.js";
import type { MemoryEvent, StartedEvent, StepEvent, TrainEvent, TrainResult } from "./events.js";
import { trainingMicroBatch } from "./micro-batch.js";
import { MOST_STEPS } from "./option-table.js";
import type { OutputFolder } from "./output.js";
import type { Plan, TrainData } from "./preparation.js";
import { learningRateAt } from "./schedule.js";

export interface LoopParts {
  plan: Plan;
  data: TrainData;
  native: NativeEncoder;
  output: OutputFolder;
  tell: (event: TrainEvent) => void;
  /** Asked between native calls. */
  stopped: () => boolean;
}

/** The loop over epochs and optimiser steps: evaluates before training and after each epoch, and saves after each. */
export class TrainLoop {
  /** Pairs in an optimiser step. Its gradient is the mean over all of them, however many batches they make. */
  private readonly pairsPerStep: number;
  private readonly stepsPerEpoch: number;
  private readonly totalSteps: number;
  private readonly epochs: number;
  private step = 0;
  private epoch = 0;
  private pairs = 0;
  private stepSeconds = 0;
  private microBatchTokens = 0;
  private sinceLog = { steps: 0, loss: 0 };
  private savedStep: number | null = null;
  private readonly evaluations: TrainResult["evaluations"] = [];

  constructor(private readonly parts: LoopParts) {
    const { options } = parts.plan;
    this.pairsPerStep = options.perDeviceTrainBatchSize * options.gradientAccumulationSteps;
    this.stepsPerEpoch = Math.ceil(parts.data.training.count / this.pairsPerStep);
    this.totalSteps = options.maxTrainSteps ?? options.numTrainEpochs * this.stepsPerEpoch;
    this.epochs = Math.ceil(this.totalSteps / this.stepsPerEpoch);
    if (this.totalSteps > MOST_STEPS) {
      throw new PeftTrainError(
        "USAGE",
        `--num_train_epochs=${options.numTrainEpochs} of ${this.stepsPerEpoch} steps are ${this.totalSteps} steps; ` +
          `a run has at most ${MOST_STEPS}`,
        { hint: "Lower --num_train_epochs, or raise --per_device_train_batch_size." },
      );
    }
  }

  async run(): Promise<Omit<TrainResult, "seconds">> {
    const { plan, native, stopped } = this.parts;
    await native.createAdapter(plan.spec, plan.options.seed);
    this.microBatchTokens = trainingMicroBatch(native, plan.loss.spec, this.stepTokens());
    const started = this.startedEvent();
    await this.tellAndLog(started);
    await this.tellAndLog(this.memoryEvent());
    await this.evaluate();
    while (this.step < this.totalSteps && !stopped()) {
      await this.trainEpoch();
      if (stopped()) break;
      await this.evaluate();
      await this.save();
      if (plan.options.checkpointingSteps === "epoch") await this.saveCheckpoint(`epoch_${this.epoch - 1}`);
    }
    // Stopped on the way: keep what the steps since the last save have done.
    if (this.step > 0 && this.savedStep !== this.step) await this.save();
    return {
      outputDir: this.parts.output.path,
      steps: this.step,
      epochs: this.epoch,
      stopped: stopped() && !this.isComplete(),
      savedStep: this.savedStep,
      evaluations: this.evaluations,
      trainableParameters: started.trainableParameters,
      allParameters: started.allParameters,
      pairsPerSecond: this.pairsPerSecond(),
    };
  }

  private async trainEpoch(): Promise<void> {
    const { plan, data, stopped } = this.parts;
    const { options } = plan;
    const order = epochOrder(data.training.count, options.seed, this.epoch);
    let start = 0;
    while (start < order.length && this.step < this.totalSteps && !stopped()) {
      const event = await this.trainStep(order.subarray(start, start + this.pairsPerStep));
      start += this.pairsPerStep;
      this.parts.tell(event);
      await this.logStep(event);
      if (typeof options.checkpointingSteps === "number" && this.step % options.checkpointingSteps === 0) {
        await this.saveCheckpoint(`step_${this.step}`);
      }
    }
    // A run that ends by --max_train_steps within an epoch counts it, as the article's script does.
    if (start >= order.length || this.step === this.totalSteps) this.epoch++;
  }

  private async logStep({
    step,
    epoch,
    loss,
    learningRate,
    gradNorm,
    pairsPerSecond,
  }: StepEvent): Promise<void> {
    this.sinceLog.steps++;
    this.sinceLog.loss += loss;
    if (step % this.parts.plan.options.loggingSteps !== 0 && step !== this.totalSteps) return;
    const mean = this.sinceLog.loss / this.sinceLog.steps;
    this.sinceLog = { steps: 0, loss: 0 };
    await this.tellAndLog({ event: "log", step, epoch, loss: mean, learningRate, gradNorm, pairsPerSecond });
  }

  private async trainStep(indices: Int32Array): Promise<StepEvent> {
    const { plan, data, native } = this.parts;
    const { options } = plan;
    const learningRate = learningRateAt(this.step, {
      type: options.lrSchedulerType,
      learningRate: options.learningRate,
      warmupSteps: options.numWarmupSteps,
      totalSteps: this.totalSteps,
    });
    const startedAt = performance.now();
    let result: StepResult;
    try {
      result = await native.step(exampleBatch(data.training, indices), {
        seed: options.seed,
        step: this.step,
        learningRate,
        weightDecay: options.weightDecay,
        beta1: options.adamBeta1,
        beta2: options.adamBeta2,
        epsilon: options.adamEpsilon,
        maxGradNorm: options.maxGradNorm,
        microBatchTokens: this.microBatchTokens,
        loss: plan.loss.spec,
      });
    } catch (error) {
      throw this.atStep(error);
    }
    if (!Number.isFinite(result.loss)) {
      throw this.atStep(
        new PeftTrainError("NOT_FINITE", `the loss is ${result.loss}`, {
          hint: "Lower --learning_rate, or set --max_grad_norm 1.",
        }),
      );
    }
    this.stepSeconds += (performance.now() - startedAt) / 1000;
    this.step++;
    this.pairs += indices.length;
    const stepsLeft = this.totalSteps - this.step;
    return {
      event: "step",
      step: this.step,
      epoch: this.epoch,
      loss: result.loss,
      learningRate,
      gradNorm: result.gradNorm,
      pairs: indices.length,
      pairsPerSecond: this.pairsPerSecond(),
      secondsLeft: (stepsLeft * this.stepSeconds) / this.step,
    };
  }

  /** Measures the evaluation set, if there is one; a stop in between leaves the measurement out. */
  private async evaluate(): Promise<void> {
    const { plan, data, native, tell, stopped } = this.parts;
    if (data.evaluation === undefined) return;
    const startedAt = performance.now();
    const metrics = await evaluateExamples(native, data.evaluation, {
      batchSize: plan.options.perDeviceEvalBatchSize,
      adapter: true,
      onProgress: (done, total) => tell({ event: "evaluating", done, total }),
      stopped,
    });
    if (metrics === undefined) return;
    const seconds = (performance.now() - startedAt) / 1000;
    const { epoch, step } = this;
    this.evaluations.push({ epoch, step, metrics });
    await this.tellAndLog({ event: "evaluated", epoch, step, metrics, seconds });
  }

  private async save(): Promise<void> {
    const { output } = this.parts;
    const { step, epoch } = this;
    const files = await output.saveAdapter(this.content());
    this.savedStep = step;
    await this.tellAndLog({ event: "saved", path: output.path, step, epoch, files });
  }

  private async saveCheckpoint(name: string): Promise<void> {
    const { output } = this.parts;
    const { step, epoch } = this;
    const files = await output.saveCheckpoint(name, this.content());
    await this.tellAndLog({ event: "saved", path: `${output.path}/${name}`, step, epoch, files });
  }

  private content(): AdapterContent {
    const { plan, data, native } = this.parts;
    return adapterContent(plan, data, native, {
      step: this.step,
      epoch: this.epoch,
      before: this.evaluations[0]?.metrics,
      now: this.measuredNow(),
    });
  }

  private isComplete(): boolean {
    const measured = this.parts.data.evaluation === undefined || this.measuredNow() !== undefined;
    return this.step === this.totalSteps && measured;
  }

  /** The metrics of the weights as they stand, if they were measured. */
  private measuredNow(): EvalMetrics | undefined {
    const last = this.evaluations.at(-1);
    return last?.step === this.step ? last.metrics : undefined;
  }

  private startedEvent(): StartedEvent {
    const { plan, data, native } = this.parts;
    const { device, threads, baseParameters, trainableParameters } = native.info();
    return {
      event: "started",
      model: plan.model.name,
      device,
      threads,
      trainPairs: data.training.count,
      evalPairs: data.evaluation?.count ?? 0,
      epochs: this.epochs,
      stepsPerEpoch: this.stepsPerEpoch,
      totalSteps: this.totalSteps,
      trainableParameters,
      allParameters: baseParameters + trainableParameters,
      adaptedModules: plan.spec.modules.length,
    };
  }

  private memoryEvent(): MemoryEvent {
    const { plan, native } = this.parts;
    const memory = native.memory(this.microBatchTokens, true);
    const frozen = memory.linear + memory.embeddings + memory.other;
    const trained = memory.adapter + memory.optimizer + memory.activations;
    return {
      event: "memory",
      storage: plan.storage ?? null,
      plan: memory,
      peak: frozen + trained,
      float32Peak: memory.float32Weights + trained,
    };
  }

  /** Tokens of an optimiser step, in the mean. */
  private stepTokens(): number {
    const { ids, count } = this.parts.data.training;
    return (Math.min(this.pairsPerStep, count) * ids.length) / count;
  }

  private async tellAndLog(event: TrainEvent): Promise<void> {
    await this.parts.output.log(event);
    this.parts.tell(event);
  }

  private pairsPerSecond(): number {
    return this.stepSeconds === 0 ? 0 : this.pairs / this.stepSeconds;
  }

  private atStep(error: unknown): unknown {
    if (!(error instanceof PeftTrainError)) return error;
    const kept =
      this.savedStep === null
        ? "nothing was saved"
        : `${this.parts.output.path} holds the adapter of step ${this.savedStep}`;
    return new PeftTrainError(
      error.code,
      `step ${this.step + 1} of ${this.totalSteps}: ${error.message} (${kept})`,
      {
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        cause: error,
      },
    );
  }
}
