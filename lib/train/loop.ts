import type { AdapterContent } from "../adapter/folder.js";
import { epochOrder } from "../data/batch.js";
import { PeftTrainError } from "../errors.js";
import type { EngineInfo, NativeEncoder, StepResult } from "../native/types.js";
import { adapterContent } from "./adapter-content.js";
import type { TrainBatches } from "./batches.js";
import type { Checkpoint, CheckpointContent, Machine, RunIdentity } from "./checkpoint.js";
import type { Drift } from "./drift.js";
import { type EvalMetrics, evaluateExamples } from "./evaluate.js";
import type {
  EvaluatedEvent,
  MemoryEvent,
  StartedEvent,
  StepEvent,
  TrainEvent,
  TrainResult,
} from "./events.js";
import { LossCurve } from "./loss-curve.js";
import { LossScale } from "./loss-scale.js";
import { trainingMicroBatch } from "./micro-batch.js";
import type { OutputFolder } from "./output.js";
import type { Plan, TrainData } from "./preparation.js";
import { identityOf, machineWarning } from "./resume.js";
import { runConfig } from "./run-config.js";
import { runLength } from "./run-length.js";
import { learningRateAt, type ScheduleOptions } from "./schedule.js";
import { scheduleOf } from "./schedule-settings.js";
import { scoresLine } from "./scores-line.js";

export interface LoopParts {
  plan: Plan;
  data: TrainData;
  batches: TrainBatches;
  /** Measured beside every evaluation. */
  drift: Drift | undefined;
  native: NativeEncoder;
  output: OutputFolder;
  engine: EngineInfo;
  /** What the run goes on from. */
  resume?: Checkpoint | undefined;
  tell: (event: TrainEvent) => void;
  /** Asked between native calls. */
  stopped: () => boolean;
}

/** The loop over epochs and optimiser steps: evaluates before training and after each epoch, and saves after each. */
export class TrainLoop {
  private readonly pairsPerStep: number;
  private readonly stepsPerEpoch: number;
  private readonly totalSteps: number;
  private readonly epochs: number;
  private readonly schedule: ScheduleOptions;
  private readonly identity: RunIdentity;
  private step = 0;
  /** Epochs trained, and those whose evaluation and save are done too. */
  private epoch = 0;
  private epochsEnded = 0;
  private pairs = 0;
  private stepSeconds = 0;
  private microBatchTokens = 0;
  private sinceLog = { steps: 0, loss: 0 };
  /** With --mixed_precision=fp16. */
  private readonly lossScale: LossScale | undefined;
  /** What the report draws; undefined with --no-report. */
  private readonly curve: LossCurve | undefined;
  private savedStep: number | null = null;
  private checkpoint: { path: string; step: number } | undefined;
  private readonly evaluations: TrainResult["evaluations"] = [];

  constructor(private readonly parts: LoopParts) {
    const { options } = parts.plan;
    const length = runLength(options, parts.data.training.count);
    this.pairsPerStep = length.pairsPerStep;
    this.stepsPerEpoch = length.stepsPerEpoch;
    this.totalSteps = length.totalSteps;
    this.epochs = length.epochs;
    this.schedule = scheduleOf(options, this.totalSteps);
    this.identity = identityOf(options, parts.data);
    this.lossScale = options.mixedPrecision === "fp16" ? new LossScale() : undefined;
    if (options.report) this.curve = new LossCurve(this.totalSteps);
  }

  async run(): Promise<Omit<TrainResult, "seconds">> {
    const { plan, stopped } = this.parts;
    const started = await (this.parts.resume === undefined ? this.begin() : this.goOn(this.parts.resume));
    while (!this.hasEnded() && !stopped()) {
      if (!(await this.trainEpoch()) || !(await this.evaluate())) break;
      await this.save();
      this.epochsEnded = this.epoch;
      if (plan.options.checkpointingSteps === "epoch") await this.saveCheckpoint(`epoch_${this.epoch - 1}`);
    }
    // Stopped on the way: keep what the steps since the last save have done.
    if (!this.hasEnded() && this.step > 0 && this.checkpoint?.step !== this.step) {
      await this.saveCheckpoint(`step_${this.step}`);
    }
    if (this.step > 0 && this.savedStep !== this.step) await this.save();
    return {
      outputDir: this.parts.output.path,
      steps: this.step,
      epochs: this.epoch,
      stopped: !this.hasEnded(),
      savedStep: this.savedStep,
      checkpoint: this.checkpoint?.path ?? null,
      evaluations: this.evaluations,
      trainableParameters: started.trainableParameters,
      allParameters: started.allParameters,
      pairsPerSecond: this.pairsPerSecond(),
    };
  }

  /** From nothing. */
  private async begin(): Promise<StartedEvent> {
    const { plan, native } = this.parts;
    await native.createAdapter(plan.spec, plan.options.seed);
    this.microBatchTokens = trainingMicroBatch(native, plan.loss.spec, this.stepTokens());
    const started = this.startedEvent();
    await this.tellAndLog(started);
    await this.tellAndLog(this.memoryEvent());
    await this.evaluate();
    return started;
  }

  /** From a checkpoint: exactly as the run that wrote it would have gone on. */
  private async goOn(checkpoint: Checkpoint): Promise<StartedEvent> {
    const { plan, native, output, tell } = this.parts;
    await native.loadAdapter(checkpoint.weightsPath, plan.spec);
    await native.loadOptimizer(checkpoint.optimizerPath);
    this.microBatchTokens = trainingMicroBatch(native, plan.loss.spec, this.stepTokens());
    const { step, epochsEnded, pairs, stepSeconds, sinceLog, evaluations, lossScale } = checkpoint.state;
    this.step = step;
    // An epoch that --max_train_steps had cut short is taken up again when the run is made longer.
    const ended = step === this.totalSteps ? epochsEnded : Math.floor(step / this.stepsPerEpoch);
    this.epochsEnded = Math.min(epochsEnded, ended);
    this.epoch = this.epochsEnded;
    this.pairs = pairs;
    this.stepSeconds = stepSeconds;
    this.sinceLog = { ...sinceLog };
    if (lossScale !== undefined) this.lossScale?.restore(lossScale);
    this.evaluations.push(...evaluations);
    this.checkpoint = { path: checkpoint.folder, step };
    this.savedStep = await output.savedStep();
    const warning = machineWarning(checkpoint, this.machine());
    if (warning !== undefined) tell({ event: "warning", message: warning });
    const started = this.startedEvent();
    tell(started);
    tell(this.memoryEvent());
    await output.restoreLog(checkpoint.log);
    const metricsBefore = evaluations[0]?.metrics ?? null;
    const { folder: path } = checkpoint;
    await this.tellAndLog({ event: "resumed", path, step, epoch: this.epoch, metricsBefore });
    return started;
  }

  /** Trains the epoch's batches from where the run stands in it; false when it was stopped before its end. */
  private async trainEpoch(): Promise<boolean> {
    const { plan, data, stopped } = this.parts;
    const { options } = plan;
    const order = epochOrder(data.training.count, options.seed, this.epoch);
    let start = (this.step - this.epoch * this.stepsPerEpoch) * this.pairsPerStep;
    while (start < order.length && this.step < this.totalSteps && !stopped()) {
      const secondsBefore = this.stepSeconds;
      const event = await this.trainStep(order.subarray(start, start + this.pairsPerStep));
      this.curve?.push(event, this.stepSeconds - secondsBefore);
      start += this.pairsPerStep;
      this.parts.tell(event);
      await this.logStep(event);
      if (typeof options.checkpointingSteps === "number" && this.step % options.checkpointingSteps === 0) {
        await this.saveCheckpoint(`step_${this.step}`);
      }
    }
    // A run that ends by --max_train_steps within an epoch counts it, as the article's script does.
    if (start < order.length && this.step < this.totalSteps) return false;
    this.epoch++;
    return true;
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
    const { plan, batches, native } = this.parts;
    const { options } = plan;
    const learningRate = learningRateAt(this.step, this.schedule);
    const startedAt = performance.now();
    let result: StepResult;
    try {
      result = await native.step(batches.at(this.step, indices), {
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
        ...(this.lossScale && { lossScale: this.lossScale.scale }),
      });
      this.lossScale?.update(result.notFinite);
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
    await this.tellSkipped(result);
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

  private async tellSkipped({ notFinite }: StepResult): Promise<void> {
    if (notFinite === undefined || this.lossScale === undefined) return;
    const { scale: lossScale, skipped } = this.lossScale.state;
    await this.tellAndLog({ event: "skipped", step: this.step, tensor: notFinite, lossScale, skipped });
  }

  /** Measures the evaluation set, if there is one; false when it was stopped in between. */
  private async evaluate(): Promise<boolean> {
    const { plan, data, drift, native, tell, stopped } = this.parts;
    if (data.evaluation === undefined) return true;
    const startedAt = performance.now();
    let scores: Float32Array | undefined;
    const measured = await evaluateExamples(native, data.evaluation, {
      batchSize: plan.options.perDeviceEvalBatchSize,
      adapter: true,
      onScores: (found) => {
        scores = found;
      },
      onProgress: (done, total) => tell({ event: "evaluating", done, total }),
      stopped,
    });
    if (measured === undefined) return false;
    const baseCosine = await drift?.measure();
    if (drift !== undefined && baseCosine === undefined) return false;
    const metrics = { ...measured, ...(baseCosine === undefined ? {} : { baseCosine }) };
    const seconds = (performance.now() - startedAt) / 1000;
    const { epoch, step } = this;
    this.evaluations.push({ epoch, step, metrics });
    const evaluated: EvaluatedEvent = { event: "evaluated", epoch, step, metrics, seconds };
    await this.tellAndLog(evaluated);
    if (this.curve !== undefined && scores !== undefined) {
      await this.log(scoresLine(evaluated, data.evaluation, scores));
    }
    return true;
  }

  private async save(): Promise<void> {
    const { output } = this.parts;
    const { step, epoch } = this;
    await this.logCurve();
    const config = runConfig(this.parts.plan.options);
    const files = await this.keepingLast(() => output.saveAdapter(this.content(), config));
    this.savedStep = step;
    await this.tellAndLog({ event: "saved", path: output.path, step, epoch, files });
  }

  private async saveCheckpoint(name: string): Promise<void> {
    const { output, plan } = this.parts;
    const { saveTotalLimit } = plan.options;
    await this.logCurve();
    const saved = await this.keepingLast(() =>
      output.saveCheckpoint(name, this.content(), this.checkpointContent(), saveTotalLimit),
    );
    this.checkpoint = { path: saved.path, step: saved.step };
    await this.tellAndLog({ event: "saved", ...saved });
  }

  private checkpointContent(): CheckpointContent {
    const { step, epochsEnded, pairs, stepSeconds, sinceLog, evaluations } = this;
    return {
      state: {
        ...{ step, epochsEnded, pairs, stepSeconds, sinceLog, evaluations },
        ...(this.lossScale && { lossScale: this.lossScale.state }),
      },
      identity: this.identity,
      machine: this.machine(),
      saveOptimizer: (file) => this.parts.native.saveOptimizer(file),
    };
  }

  private machine(): Machine {
    const { engine, native } = this.parts;
    const { device, threads } = native.info();
    const { cpuKernels, torchVersion } = engine;
    return { device, threads, cpuKernels, torchVersion, microBatchTokens: this.microBatchTokens };
  }

  /** Where nothing can be written any more, what can be gone on from is worth more than the reason. */
  private async keepingLast<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      if (!(error instanceof PeftTrainError) || error.code !== "OUTPUT_UNWRITABLE") throw error;
      const { message, code } = error;
      const at = `step ${this.step} of ${this.totalSteps}`;
      if (this.checkpoint === undefined) {
        throw new PeftTrainError(code, `${at}: ${message} (there is no earlier checkpoint)`, {
          cause: error,
        });
      }
      throw new PeftTrainError(
        code,
        `${at}: ${message} (${this.checkpoint.path} of step ${this.checkpoint.step} is whole)`,
        {
          hint: "Make room, then go on with the same command and --resume_from_checkpoint=latest.",
          cause: error,
        },
      );
    }
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

  /** Whether all steps are done and the last epoch's evaluation and save too. */
  private hasEnded(): boolean {
    return this.step >= this.totalSteps && this.epochsEnded >= this.epochs;
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
    const { data, batches } = this.parts;
    return Math.min(this.pairsPerStep, data.training.count) * batches.tokensPerExample;
  }

  private async tellAndLog(event: TrainEvent): Promise<void> {
    await this.log(event);
    this.parts.tell(event);
  }

  /** Before a save, so that a checkpoint has the whole of it. */
  private async logCurve(): Promise<void> {
    const line = this.curve?.take();
    if (line !== undefined) await this.log(line);
  }

  private log(line: object): Promise<void> {
    return this.keepingLast(() => this.parts.output.log(line));
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
