import { POLYNOMIAL_END, type ScheduleSettings } from "../options/schedule-settings.js";

/** Schedules of transformers.optimization that depend on nothing but the step. */
export const SCHEDULES = [
  "linear",
  "cosine",
  "cosine_with_restarts",
  "polynomial",
  "constant",
  "constant_with_warmup",
  "inverse_sqrt",
  "warmup_stable_decay",
] as const;

export type ScheduleType = (typeof SCHEDULES)[number];

export interface ScheduleOptions {
  type: ScheduleType;
  /** The rate that the schedule scales. */
  learningRate: number;
  warmupSteps: number;
  /** Optimiser steps of the whole run. */
  totalSteps: number;
  /** Of this type, checked; defaults are transformers'. */
  settings: ScheduleSettings;
}

/** Whether the rate of a step depends on how long the run is. */
export function needsTotalSteps(type: ScheduleType): boolean {
  return type !== "constant" && type !== "constant_with_warmup" && type !== "inverse_sqrt";
}

/**
 * Learning rate of optimiser step `step`, counted from 0, as transformers' get_scheduler gives it;
 * with warm-up the very first step has a rate of 0.
 */
export function learningRateAt(step: number, options: ScheduleOptions): number {
  return options.learningRate * factor(step, options);
}

function factor(step: number, options: ScheduleOptions): number {
  const { type, learningRate, warmupSteps, totalSteps, settings } = options;
  if (type === "constant") return 1;
  if (type === "warmup_stable_decay") return warmupStableDecay(step, options);
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  switch (type) {
    case "constant_with_warmup":
      return 1;
    case "linear":
      return Math.max(0, (totalSteps - step) / Math.max(1, totalSteps - warmupSteps));
    case "cosine":
      return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (settings.num_cycles ?? 0.5) * 2 * progress)));
    case "cosine_with_restarts": {
      const cycle = ((settings.num_cycles ?? 1) * progress) % 1;
      return progress >= 1 ? 0 : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * cycle)));
    }
    case "polynomial": {
      const end = settings.lr_end ?? POLYNOMIAL_END;
      if (step > totalSteps) return end / learningRate;
      return ((learningRate - end) * (1 - progress) ** (settings.power ?? 1) + end) / learningRate;
    }
    case "inverse_sqrt": {
      const timescale = settings.timescale ?? (warmupSteps || 10_000);
      return 1 / Math.sqrt((step + timescale - warmupSteps) / timescale);
    }
  }
}

/** Rises, stays and falls; Hu et al., "MiniCPM", 2024. */
function warmupStableDecay(step: number, { warmupSteps, totalSteps, settings }: ScheduleOptions): number {
  const { num_decay_steps: decaySteps = 0, min_lr_ratio: least = 0, num_cycles: cycles = 0.5 } = settings;
  const stableSteps = settings.num_stable_steps ?? totalSteps - warmupSteps - decaySteps;
  const scaled = (share: number): number => Math.max(0, share * (1 - least) + least);
  if (step < warmupSteps) {
    const progress = step / Math.max(1, warmupSteps);
    switch (settings.warmup_type ?? "linear") {
      case "linear":
        return scaled(progress);
      case "cosine":
        return scaled(0.5 * (1 - Math.cos(Math.PI * progress)));
      case "1-sqrt":
        return scaled(1 - Math.sqrt(1 - progress));
    }
  }
  if (step < warmupSteps + stableSteps) return 1;
  if (step >= warmupSteps + stableSteps + decaySteps) return least;
  const progress = (step - warmupSteps - stableSteps) / Math.max(1, decaySteps);
  switch (settings.decay_type ?? "cosine") {
    case "linear":
      return scaled(1 - progress);
    case "cosine":
      return scaled(0.5 * (1 + Math.cos(Math.PI * cycles * 2 * progress)));
    case "1-sqrt":
      return scaled(1 - Math.sqrt(progress));
  }
}
