/** The schedules of transformers.optimization that the article's script offers. */
export const SCHEDULES = [
  "linear",
  "cosine",
  "cosine_with_restarts",
  "polynomial",
  "constant",
  "constant_with_warmup",
] as const;

export type ScheduleType = (typeof SCHEDULES)[number];

export interface ScheduleOptions {
  type: ScheduleType;
  /** The rate that the schedule scales. */
  learningRate: number;
  warmupSteps: number;
  /** Optimiser steps of the whole run. */
  totalSteps: number;
}

/** Where `polynomial` ends. */
const POLYNOMIAL_END = 1e-7;

/**
 * Learning rate of optimiser step `step`, counted from 0, as transformers' get_scheduler gives it with its defaults;
 * with warm-up the very first step has a rate of 0.
 */
export function learningRateAt(step: number, options: ScheduleOptions): number {
  return options.learningRate * factor(step, options);
}

function factor(step: number, { type, learningRate, warmupSteps, totalSteps }: ScheduleOptions): number {
  if (type === "constant") return 1;
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  switch (type) {
    case "constant_with_warmup":
      return 1;
    case "linear":
      return Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps));
    case "cosine":
      return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
    case "cosine_with_restarts":
      return progress >= 1 ? 0 : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (progress % 1))));
    case "polynomial":
      if (step > totalSteps) return POLYNOMIAL_END / learningRate;
      return ((learningRate - POLYNOMIAL_END) * (1 - progress) + POLYNOMIAL_END) / learningRate;
  }
}
