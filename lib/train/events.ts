import type { MemoryPlan, WeightStorage } from "../native/types.js";
import type { EvalMetrics } from "./evaluation/evaluate.js";

/** What a training run tells while it goes on, in the order in which it happens. */
export type TrainEvent =
  | { event: "warning"; message: string }
  /** Reading and tokenising a file of pairs. `bytesTotal` is 0 where it cannot be known. */
  | { event: "reading"; path: string; bytesRead: number; bytesTotal: number }
  /** Bringing a model from the Hub into the cache; `file` is owner/name, or a file of it. */
  | { event: "downloading"; file: string; bytesRead: number; bytesTotal: number }
  /** Where a tracker writes; `wandb sync PATH` uploads it. */
  | { event: "tracking"; tracker: "wandb"; path: string }
  | StartedEvent
  | MemoryEvent
  | ResumedEvent
  /** Embedding texts with the base model, for --anchor, --keep_weight and to measure drift. */
  | { event: "preparing"; done: number; total: number }
  | { event: "evaluating"; done: number; total: number }
  | EvaluatedEvent
  | StepEvent
  | SkippedEvent
  | LogEvent
  | SavedEvent
  /** `--push_to_hub`: where the adapter or model is on the Hub. */
  | { event: "pushed"; repository: string; url: string; commit: string }
  | ({ event: "finished" } & TrainResult);

/** What a run begins with: model, adapter, data. */
export interface StartedEvent {
  event: "started";
  model: string;
  /** Device and threads that the engine took. */
  device: string;
  threads: number;
  trainPairs: number;
  /** 0 without an evaluation set. */
  evalPairs: number;
  epochs: number;
  stepsPerEpoch: number;
  totalSteps: number;
  trainableParameters: number;
  /** Of the model, with the adapter where there is one. */
  allParameters: number;
  /** Modules that LoRA wraps; 0 where the whole model trains. */
  adaptedModules: number;
}

/** What the run will take at its peak, in bytes, beside libtorch itself: told before the first step. */
export interface MemoryEvent {
  event: "memory";
  /** How the frozen weights are held; null for float32. */
  storage: WeightStorage | null;
  /** The parts; `peak` is their sum, `float32Peak` the same with the frozen weights in float32. */
  plan: MemoryPlan;
  peak: number;
  float32Peak: number;
}

/** The run goes on from a checkpoint. */
export interface ResumedEvent {
  event: "resumed";
  /** Folder of the checkpoint. */
  path: string;
  step: number;
  /** Epochs that had ended. */
  epoch: number;
  /** Before training, if they were measured. */
  metricsBefore: EvalMetrics | null;
}

/** What an evaluation has measured, and when. */
export interface Evaluation {
  /** Whole epochs trained; 0 before training. */
  epoch: number;
  step: number;
  metrics: EvalMetrics;
}

/** An evaluation during a run. */
export interface EvaluatedEvent extends Evaluation {
  event: "evaluated";
  seconds: number;
}

/** Where a run was best by one metric, the evaluation before training left out. */
export interface BestEvaluation {
  /** As evaluations are logged, such as `roc_auc`. */
  metric: string;
  value: number;
  step: number;
  epoch: number;
}

/** One optimiser step. */
export interface StepEvent {
  event: "step";
  /** Steps done, this one counted. */
  step: number;
  epoch: number;
  loss: number;
  learningRate: number;
  gradNorm: number;
  /** Pairs in this step. */
  pairs: number;
  /** Mean since training began, evaluation and saving left out. */
  pairsPerSecond: number;
  /** Until the last step, by that mean; evaluation and saving left out. */
  secondsLeft: number;
}

/** A step whose gradients overflowed float16: nothing was trained, and the loss scale was halved. */
export interface SkippedEvent {
  event: "skipped";
  step: number;
  /** The first whose gradient was not finite. */
  tensor: string;
  /** From here on. */
  lossScale: number;
  /** Steps skipped in this run so far. */
  skipped: number;
}

/** Every `logging_steps` steps. */
export interface LogEvent {
  event: "log";
  step: number;
  epoch: number;
  /** Mean over the steps since the last log. */
  loss: number;
  learningRate: number;
  gradNorm: number;
  pairsPerSecond: number;
}

/** Files that a run has written. */
export interface SavedEvent {
  event: "saved";
  path: string;
  step: number;
  epoch: number;
  files: SavedFile[];
}

/** One of them. */
export interface SavedFile {
  name: string;
  bytes: number;
}

/** What a run has come to. */
export interface TrainResult {
  outputDir: string;
  /** Optimiser steps done, and whole epochs. */
  steps: number;
  epochs: number;
  /** Whether `stop` ended the run early. */
  stopped: boolean;
  /** Whether it ended before its last step because nothing got better for `earlyStoppingPatience` evaluations. */
  stoppedEarly: boolean;
  /** Step of what is in `outputDir`, with `loadBestModelAtEnd` that of `best`; null when nothing was saved. */
  savedStep: number | null;
  /** Newest checkpoint of the run; null without one. `resumeFromCheckpoint` goes on from it. */
  checkpoint: string | null;
  /** Every evaluation, the one before training first. */
  evaluations: Evaluation[];
  /** By `metricForBestModel`; null where nothing was measured after training began. */
  best: BestEvaluation | null;
  trainableParameters: number;
  allParameters: number;
  /** Of the optimiser steps alone. */
  pairsPerSecond: number;
  /** Of the whole run. */
  seconds: number;
}
