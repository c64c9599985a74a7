import { PeftTrainError } from "../../errors.js";
import type { ExampleBatch, NativeEncoder, StepResult } from "../../native/types.js";
import { scheduleOf } from "../options/schedule-settings.js";
import type { Plan } from "../preparation.js";
import { LossScale, type LossScaleState } from "./loss-scale.js";
import { learningRateAt, type ScheduleOptions } from "./schedule.js";

export interface OptimizerStep extends StepResult {
  learningRate: number;
}

/** The optimiser steps of a run, each by what the options say of its place in the run. */
export class OptimizerSteps {
  private readonly schedule: ScheduleOptions;
  /** With --mixed_precision=fp16. */
  private readonly lossScale: LossScale | undefined;

  constructor(
    private readonly plan: Plan,
    private readonly native: NativeEncoder,
    totalSteps: number,
  ) {
    const { options } = plan;
    this.schedule = scheduleOf(options, totalSteps);
    this.lossScale = options.mixedPrecision === "fp16" ? new LossScale() : undefined;
  }

  get scaleState(): LossScaleState | undefined {
    return this.lossScale?.state;
  }

  restoreScale(state: LossScaleState): void {
    this.lossScale?.restore(state);
  }

  /** @throws NOT_FINITE and what the engine throws. */
  async take(step: number, batch: ExampleBatch, microBatchTokens: number): Promise<OptimizerStep> {
    const { options, loss } = this.plan;
    const learningRate = learningRateAt(step, this.schedule);
    const result = await this.native.step(batch, {
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
    });
    this.lossScale?.update(result.notFinite);
    if (!Number.isFinite(result.loss)) {
      throw new PeftTrainError("NOT_FINITE", `the loss is ${result.loss}`, {
        hint: "Lower --learning_rate, or set --max_grad_norm 1.",
      });
    }
    return { ...result, learningRate };
  }
}
