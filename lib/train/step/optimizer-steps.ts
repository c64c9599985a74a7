import { PeftTrainError } from "../../errors.js";
import type { ExampleBatch, NativeEncoder, StepResult } from "../../native/types.js";
import { scheduleOf } from "../options/schedule-settings.js";
import type { Plan } from "../preparation.js";
import { LossScale, type LossScaleState } from "./loss-scale.js";
import { learningRateAt, type ScheduleOptions } from "./schedule.js";

/** A step that is asked of the engine. */
export interface StepRequest {
  /** From 0. */
  step: number;
  pairs: number;
  batch: ExampleBatch;
  microBatchTokens: number;
}

/** What a step came to. */
export interface OptimizerStep extends StepResult {
  /** From 0. */
  step: number;
  pairs: number;
  learningRate: number;
}

/**
 * The optimiser steps of a run, each by what the options say of its place in the run. A GPU is not waited for after each:
 * what its steps came to is told later, unless a loss scale needs it for the next.
 */
export class OptimizerSteps {
  private readonly schedule: ScheduleOptions;
  /** With --mixed_precision=fp16. */
  private readonly lossScale: LossScale | undefined;
  private waiting: Omit<OptimizerStep, keyof StepResult>[] = [];

  constructor(
    private readonly plan: Plan,
    private readonly native: NativeEncoder,
    totalSteps: number,
  ) {
    const { options } = plan;
    this.schedule = scheduleOf(options, totalSteps);
    this.lossScale = options.mixedPrecision === "fp16" ? new LossScale() : undefined;
  }

  /** Steps that were taken and not yet told. */
  get untold(): number {
    return this.waiting.length;
  }

  get scaleState(): LossScaleState | undefined {
    return this.lossScale?.state;
  }

  restoreScale(state: LossScaleState): void {
    this.lossScale?.restore(state);
  }

  /**
   * Takes a step, and tells what has not been told yet, in order: with `wait` up to this step, without it maybe nothing. The last
   * one told may be one that is not finite; then nothing was changed by it and after it.
   * @throws what the engine throws, and NOT_FINITE where a loss scale cannot go lower
   */
  async take(request: StepRequest, wait: boolean): Promise<OptimizerStep[]> {
    const { step, pairs, batch, microBatchTokens } = request;
    const { options, loss } = this.plan;
    const learningRate = learningRateAt(step, this.schedule);
    const stepOptions = {
      seed: options.seed,
      step,
      learningRate,
      weightDecay: options.weightDecay,
      beta1: options.adamBeta1,
      beta2: options.adamBeta2,
      epsilon: options.adamEpsilon,
      maxGradNorm: options.maxGradNorm,
      microBatchTokens,
      loss: loss.spec,
      ...(this.lossScale && { lossScale: this.lossScale.scale }),
    };
    if (this.lossScale === undefined && this.native.info().device !== "cpu") {
      await this.native.queueStep(batch, stepOptions);
      this.waiting.push({ step, pairs, learningRate });
      return wait ? this.tell() : [];
    }
    const result = await this.native.step(batch, stepOptions);
    this.lossScale?.update(result.notFinite);
    return [{ ...result, step, pairs, learningRate }];
  }

  /** Waits for the steps that are not told yet. */
  async tell(): Promise<OptimizerStep[]> {
    const { waiting } = this;
    if (waiting.length === 0) return [];
    this.waiting = [];
    const results = await this.native.stepResults();
    return results.flatMap((result, i) => {
      const taken = waiting[i];
      return taken === undefined ? [] : [{ ...taken, ...result }];
    });
  }
}

/** @throws NOT_FINITE for a step that changed nothing because its loss or its gradient is not finite. */
export function checkFinite({ loss, gradNorm, notFinite }: StepResult): void {
  const what = Number.isFinite(loss) ? `the norm of the gradient is ${gradNorm}` : `the loss is ${loss}`;
  if (Number.isFinite(loss) && (Number.isFinite(gradNorm) || notFinite !== undefined)) return;
  throw new PeftTrainError("NOT_FINITE", what, {
    hint: "Lower --learning_rate, or set --max_grad_norm 1.",
  });
}
