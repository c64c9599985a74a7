import { epochOrder } from "../data/batch.js";
import { PeftTrainError } from "../errors.js";
import type { EngineInfo, NativeEncoder } from "../native/types.js";
import type { Checkpoint, LoopState, Machine } from "./checkpoint/checkpoint.js";
import { identityOf, machineWarning } from "./checkpoint/resume.js";
import type { Drift } from "./evaluation/drift.js";
import { RunEvaluations } from "./evaluation/run-evaluations.js";
import type { StartedEvent, StepEvent, TrainEvent, TrainResult } from "./events.js";
import { LossCurve } from "./output/loss-curve.js";
import type { OutputFolder } from "./output/output.js";
import { RunSaves } from "./output/run-saves.js";
import type { Plan, TrainData } from "./preparation.js";
import { memoryEvent, startedEvent } from "./run-events.js";
import { type RunLength, runLength } from "./run-length.js";
import type { TrainBatches } from "./step/batches.js";
import { trainingMicroBatch } from "./step/micro-batch.js";
import { checkFinite, type OptimizerStep, OptimizerSteps } from "./step/optimizer-steps.js";
import { beginWith, goOnWith } from "./trained.js";

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

/** The loop over epochs and optimiser steps: evaluates before training and after each epoch or so many steps, and saves. */
export class TrainLoop {
  private readonly length: RunLength;
  private readonly optimizer: OptimizerSteps;
  private readonly saves: RunSaves;
  /** What the report draws; undefined with --no-report. */
  private readonly curve: LossCurve | undefined;
  private readonly evaluations: RunEvaluations;
  private readonly state: LoopState = {
    step: 0,
    epochsEnded: 0,
    pairs: 0,
    stepSeconds: 0,
    sinceLog: { steps: 0, loss: 0 },
    evaluations: [],
  };
  /** Spent on steps that are not told yet. */
  private untoldSeconds = 0;
  /** Whether no step was taken since the process began. */
  private isFirst = true;
  /** Epochs trained; `epochsEnded` counts those whose evaluation and save are done too. */
  private epoch = 0;
  private microBatchTokens = 0;

  constructor(private readonly parts: LoopParts) {
    const { plan, data, native } = parts;
    const { options } = plan;
    this.length = runLength(options, data.training.count);
    const { totalSteps } = this.length;
    this.optimizer = new OptimizerSteps(plan, native, totalSteps);
    this.curve = options.report ? new LossCurve(totalSteps) : undefined;
    this.saves = new RunSaves(parts, identityOf(options, data), this.state, this.curve);
    this.evaluations = new RunEvaluations(parts, this.state, this.saves);
  }

  async run(): Promise<Omit<TrainResult, "seconds">> {
    const { stopped, output, resume } = this.parts;
    const { state, saves } = this;
    const started = await (resume === undefined ? this.begin() : this.goOn(resume));
    while (!this.hasEnded() && !stopped()) {
      if (!(await this.trainEpoch()) || !(await this.endEpoch())) break;
    }
    // Stopped on the way: keep what the steps since the last save have done.
    if (!this.hasEnded() && state.step > 0 && saves.checkpoint?.step !== state.step) {
      await this.saveCheckpoint(`step_${state.step}`);
    }
    if (state.step > 0 && !this.evaluations.kept && saves.savedStep !== state.step) {
      await saves.save(this.epoch);
    }
    return {
      outputDir: output.path,
      steps: state.step,
      epochs: this.epoch,
      stopped: !this.hasEnded(),
      stoppedEarly: this.evaluations.outOfPatience && !this.hasAllSteps(),
      savedStep: saves.savedStep,
      checkpoint: saves.checkpoint?.path ?? null,
      evaluations: state.evaluations,
      best: this.evaluations.best ?? null,
      trainableParameters: started.trainableParameters,
      allParameters: started.allParameters,
      pairsPerSecond: this.pairsPerSecond(),
    };
  }

  /** From nothing. */
  private async begin(): Promise<StartedEvent> {
    const { plan, native } = this.parts;
    await beginWith(plan, native);
    this.microBatchTokens = trainingMicroBatch(native, plan.loss.spec, this.stepTokens());
    const started = startedEvent(this.parts, this.length);
    await this.saves.tellAndLog(started);
    await this.saves.tellAndLog(memoryEvent(this.parts, this.microBatchTokens));
    await this.evaluations.measure(this.epoch);
    return started;
  }

  /** From a checkpoint: exactly as the run that wrote it would have gone on. */
  private async goOn(checkpoint: Checkpoint): Promise<StartedEvent> {
    const { plan, native, output, tell } = this.parts;
    const { state, saves } = this;
    const { stepsPerEpoch, totalSteps } = this.length;
    await goOnWith(plan, native, checkpoint.weightsPath);
    await native.loadOptimizer(checkpoint.optimizerPath);
    this.microBatchTokens = trainingMicroBatch(native, plan.loss.spec, this.stepTokens());
    Object.assign(state, structuredClone(checkpoint.state));
    if (state.lossScale !== undefined) this.optimizer.restoreScale(state.lossScale);
    // An epoch that --max_train_steps had cut short is taken up again when the run is made longer.
    const ended = state.step === totalSteps ? state.epochsEnded : Math.floor(state.step / stepsPerEpoch);
    state.epochsEnded = Math.min(state.epochsEnded, ended);
    this.epoch = state.epochsEnded;
    this.evaluations.goOn();
    const { folder: path } = checkpoint;
    const { step } = state;
    saves.checkpoint = { path, step };
    saves.savedStep = await output.savedStep();
    const warning = machineWarning(checkpoint, this.machine());
    if (warning !== undefined) tell({ event: "warning", message: warning });
    const started = startedEvent(this.parts, this.length);
    tell(started);
    tell(memoryEvent(this.parts, this.microBatchTokens));
    await output.restoreLog(checkpoint.log);
    const best = this.evaluations.kept;
    if (best !== undefined) await saves.restoreBest(checkpoint, best);
    const metricsBefore = state.evaluations[0]?.metrics ?? null;
    await saves.tellAndLog({ event: "resumed", path, step, epoch: this.epoch, metricsBefore });
    return started;
  }

  /** Trains the epoch's batches from where the run stands in it; false when it ends before they are done. */
  private async trainEpoch(): Promise<boolean> {
    const { plan, data, stopped } = this.parts;
    const { options } = plan;
    const { state } = this;
    const { pairsPerStep, stepsPerEpoch } = this.length;
    const order = epochOrder(data.training.count, options.seed, this.epoch);
    let start = (state.step - this.epoch * stepsPerEpoch) * pairsPerStep;
    while (start < order.length && !this.hasAllSteps()) {
      // A run that was stopped while it measured has yet to do it.
      if (this.evaluations.isDue && !(await this.evaluations.measure(this.epoch))) return false;
      if (this.evaluations.outOfPatience || stopped()) {
        await this.tellSteps(() => this.optimizer.tell());
        return false;
      }
      const indices = order.subarray(start, start + pairsPerStep);
      start += pairsPerStep;
      await this.trainStep(indices, start >= order.length);
      if (this.optimizer.untold > 0) continue;
      const within = start < order.length && !this.hasAllSteps();
      if (within && this.evaluations.isDue && !(await this.evaluations.measure(this.epoch))) return false;
      if (isMultiple(state.step, options.checkpointingSteps)) await this.saveCheckpoint(`step_${state.step}`);
    }
    // A run that ends by --max_train_steps within an epoch counts it, as the article's script does.
    this.epoch++;
    return true;
  }

  /** Measures and saves what an epoch has come to; false when it was stopped in between. */
  private async endEpoch(): Promise<boolean> {
    const { options } = this.parts.plan;
    const byEpoch = typeof options.evalSteps !== "number";
    if (
      (byEpoch || this.hasAllSteps() || this.evaluations.isDue) &&
      !(await this.evaluations.measure(this.epoch))
    )
      return false;
    if (!this.evaluations.kept) await this.saves.save(this.epoch);
    this.state.epochsEnded = this.epoch;
    if (options.checkpointingSteps === "epoch") await this.saveCheckpoint(`epoch_${this.epoch - 1}`);
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
    const { sinceLog } = this.state;
    sinceLog.steps++;
    sinceLog.loss += loss;
    if (step % this.parts.plan.options.loggingSteps !== 0 && !this.hasAllSteps()) return;
    const mean = sinceLog.loss / sinceLog.steps;
    this.state.sinceLog = { steps: 0, loss: 0 };
    await this.saves.tellAndLog({
      event: "log",
      step,
      epoch,
      loss: mean,
      learningRate,
      gradNorm,
      pairsPerSecond,
    });
  }

  /** Takes a step. The first is told at once, and all are where something else than another one comes next. */
  private async trainStep(indices: Int32Array, endsEpoch: boolean): Promise<void> {
    const { options } = this.parts.plan;
    const step = this.state.step + this.optimizer.untold;
    const due = [options.loggingSteps, options.evalSteps, options.checkpointingSteps];
    const last = endsEpoch || step + 1 === this.length.totalSteps;
    const wait = this.isFirst || last || due.some((every) => isMultiple(step + 1, every));
    this.isFirst = false;
    await this.tellSteps(() => {
      const batch = this.parts.batches.at(step, indices);
      const { microBatchTokens } = this;
      return this.optimizer.take({ step, pairs: indices.length, batch, microBatchTokens }, wait);
    }, step);
  }

  /** Counts, logs and tells what steps came to. */
  private async tellSteps(take: () => Promise<OptimizerStep[]>, asked = this.state.step): Promise<void> {
    const startedAt = performance.now();
    let told: OptimizerStep[];
    try {
      told = await take();
    } catch (error) {
      throw this.atStep(error, asked);
    }
    this.untoldSeconds += (performance.now() - startedAt) / 1000;
    if (told.length === 0) return;
    const seconds = this.untoldSeconds / told.length;
    this.untoldSeconds = 0;
    for (const taken of told) {
      try {
        checkFinite(taken);
      } catch (error) {
        throw this.atStep(error, taken.step);
      }
      await this.tellStep(taken, seconds);
    }
  }

  private async tellStep(taken: OptimizerStep, seconds: number): Promise<void> {
    const { state, length } = this;
    const { loss, learningRate, gradNorm, pairs } = taken;
    state.stepSeconds += seconds;
    state.step++;
    state.pairs += pairs;
    await this.keepScale(taken.notFinite);
    const event: StepEvent = {
      event: "step",
      step: state.step,
      epoch: this.epoch,
      loss,
      learningRate,
      gradNorm,
      pairs,
      pairsPerSecond: this.pairsPerSecond(),
      secondsLeft: ((length.totalSteps - state.step) * state.stepSeconds) / state.step,
    };
    this.curve?.push(event, seconds);
    this.parts.tell(event);
    await this.logStep(event);
  }

  /** Keeps the loss scale for checkpoints, and tells of a step that was skipped for what overflowed. */
  private async keepScale(notFinite: string | undefined): Promise<void> {
    const { scaleState } = this.optimizer;
    if (scaleState === undefined) return;
    this.state.lossScale = scaleState;
    if (notFinite === undefined) return;
    const { scale: lossScale, skipped } = scaleState;
    const { step } = this.state;
    await this.saves.tellAndLog({ event: "skipped", step, tensor: notFinite, lossScale, skipped });
  }

  private saveCheckpoint(name: string): Promise<void> {
    return this.saves.saveCheckpoint(name, this.epoch, this.machine(), this.evaluations.kept);
  }

  private machine(): Machine {
    const { engine, native } = this.parts;
    const { device, threads } = native.info();
    const { cpuKernels, torchVersion } = engine;
    return { device, threads, cpuKernels, torchVersion, microBatchTokens: this.microBatchTokens };
  }

  private hasAllSteps(): boolean {
    return this.state.step >= this.length.totalSteps;
  }

  /** Whether nothing is left to do: no step, and of the last epoch neither evaluation nor save. */
  private hasEnded(): boolean {
    const done = this.hasAllSteps() && this.state.epochsEnded >= this.length.epochs;
    return done || this.evaluations.outOfPatience;
  }

  /** Tokens of an optimiser step, in the mean. */
  private stepTokens(): number {
    const { data, batches } = this.parts;
    return Math.min(this.length.pairsPerStep, data.training.count) * batches.tokensPerExample;
  }

  private pairsPerSecond(): number {
    const { pairs, stepSeconds } = this.state;
    return stepSeconds === 0 ? 0 : pairs / stepSeconds;
  }

  /** @param step From 0. */
  private atStep(error: unknown, step: number): unknown {
    if (!(error instanceof PeftTrainError)) return error;
    const at = `step ${step + 1} of ${this.length.totalSteps}`;
    return new PeftTrainError(error.code, `${at}: ${error.message} (${this.saves.kept})`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error,
    });
  }
}

function isMultiple(step: number, of: number | "epoch" | null): boolean {
  return typeof of === "number" && step % of === 0;
}
