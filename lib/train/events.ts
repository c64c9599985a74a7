import type { MemoryPlan, WeightStorage } from "../native/types.js";
import type { EvalMetrics } from "./evaluation/evaluate.js";

/** What a training run tells while it goes on, in the order in which it happens. */
export type TrainEvent =
  | WarningEvent
  | ReadingEvent
  | DownloadingEvent
  | TrackingEvent
  | StartedEvent
  | MemoryEvent
  | ResumedEvent
  | PreparingEvent
  | EvaluatingEvent
  | EvaluatedEvent
  | StepEvent
  | SkippedEvent
  | LogEvent
  | SavedEvent
  | PushedEvent
  | FinishedEvent;

/** What is worth a word and stops nothing. */
export interface WarningEvent {
  /** Which event it is. */
  event: "warning";
  /** One sentence or two. */
  message: string;
}

/** Reading and tokenising a file of examples. */
export interface ReadingEvent {
  /** Which event it is. */
  event: "reading";
  /** Of the file. */
  path: string;
  /** So far. */
  bytesRead: number;
  /** In all; 0 where that cannot be known. */
  bytesTotal: number;
}

/** Bringing a model from the Hub into the cache. */
export interface DownloadingEvent {
  /** Which event it is. */
  event: "downloading";
  /** `owner/name`, or a file of it. */
  file: string;
  /** So far. */
  bytesRead: number;
  /** In all. */
  bytesTotal: number;
}

/** Where a tracker writes. */
export interface TrackingEvent {
  /** Which event it is. */
  event: "tracking";
  /** Which one. */
  tracker: "wandb";
  /** Folder of the run, which `wandb sync PATH` uploads. */
  path: string;
}

/** Embedding texts with the base model, for --anchor, --keep_weight and to measure drift. */
export interface PreparingEvent {
  /** Which event it is. */
  event: "preparing";
  /** Texts so far. */
  done: number;
  /** Texts in all. */
  total: number;
}

/** Measuring the evaluation set. */
export interface EvaluatingEvent {
  /** Which event it is. */
  event: "evaluating";
  /** Examples so far. */
  done: number;
  /** Examples in all. */
  total: number;
}

/** `--push_to_hub`: where the adapter or model is on the Hub. */
export interface PushedEvent {
  /** Which event it is. */
  event: "pushed";
  /** `owner/name`. */
  repository: string;
  /** Of the repository's page. */
  url: string;
  /** Id of the commit. */
  commit: string;
}

/** The run has ended: its last event. */
export interface FinishedEvent extends TrainResult {
  /** Which event it is. */
  event: "finished";
}

/** What a run begins with: model, adapter, data. */
export interface StartedEvent {
  /** Which event it is. */
  event: "started";
  /** Base model, as it was given. */
  model: string;
  /** `cpu`, or `cuda:N`. */
  device: string;
  /** Of the matrix products. */
  threads: number;
  /** Examples of the training set. */
  trainPairs: number;
  /** 0 without an evaluation set. */
  evalPairs: number;
  /** Passes over the training set, the last of which may be cut short. */
  epochs: number;
  /** Optimiser steps of a whole epoch. */
  stepsPerEpoch: number;
  /** Optimiser steps of the run. */
  totalSteps: number;
  /** Numbers that train, as PEFT counts them. */
  trainableParameters: number;
  /** Of the model, with the adapter where there is one. */
  allParameters: number;
  /** Modules that LoRA wraps; 0 where the whole model trains. */
  adaptedModules: number;
}

/** What the run will take at its peak, in bytes, beside libtorch itself: told before the first step. */
export interface MemoryEvent {
  /** Which event it is. */
  event: "memory";
  /** How the frozen weights are held; null for float32. */
  storage: WeightStorage | null;
  /** The parts. */
  plan: MemoryPlan;
  /** Sum of the plan's parts. */
  peak: number;
  /** The same with the frozen weights in float32. */
  float32Peak: number;
}

/** The run goes on from a checkpoint. */
export interface ResumedEvent {
  /** Which event it is. */
  event: "resumed";
  /** Folder of the checkpoint. */
  path: string;
  /** Optimiser steps that had been done. */
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
  /** Optimiser steps done. */
  step: number;
  /** By the kind of the evaluation set. */
  metrics: EvalMetrics;
}

/** An evaluation during a run. */
export interface EvaluatedEvent extends Evaluation {
  /** Which event it is. */
  event: "evaluated";
  /** That the evaluation took. */
  seconds: number;
}

/** Where a run was best by one metric, the evaluation before training left out. */
export interface BestEvaluation {
  /** As evaluations are logged, such as `roc_auc`. */
  metric: string;
  /** Of that metric. */
  value: number;
  /** Optimiser steps done then. */
  step: number;
  /** Whole epochs trained then. */
  epoch: number;
}

/** One optimiser step. */
export interface StepEvent {
  /** Which event it is. */
  event: "step";
  /** Steps done, this one counted. */
  step: number;
  /** Whole epochs trained before this step. */
  epoch: number;
  /** Of the step's examples, with dropout. */
  loss: number;
  /** Of this step. */
  learningRate: number;
  /** L2 norm of all gradients, before clipping. */
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
  /** Which event it is. */
  event: "skipped";
  /** Steps done, this one counted. */
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
  /** Which event it is. */
  event: "log";
  /** Optimiser steps done. */
  step: number;
  /** Whole epochs trained. */
  epoch: number;
  /** Mean over the steps since the last log. */
  loss: number;
  /** Of the last step. */
  learningRate: number;
  /** L2 norm of the last step's gradients, before clipping. */
  gradNorm: number;
  /** Mean since training began, evaluation and saving left out. */
  pairsPerSecond: number;
}

/** Files that a run has written. */
export interface SavedEvent {
  /** Which event it is. */
  event: "saved";
  /** Output folder, or that of a checkpoint; absolute. */
  path: string;
  /** Optimiser steps done. */
  step: number;
  /** Whole epochs trained. */
  epoch: number;
  /** With their sizes. */
  files: SavedFile[];
}

/** One of them. */
export interface SavedFile {
  /** Below that folder. */
  name: string;
  /** Its size. */
  bytes: number;
}

/** What a run has come to. */
export interface TrainResult {
  /** Absolute. */
  outputDir: string;
  /** Optimiser steps done. */
  steps: number;
  /** Whole epochs, one that `maxTrainSteps` cut short counted. */
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
  /** Numbers that train, as PEFT counts them. */
  trainableParameters: number;
  /** Of the model, with the adapter where there is one. */
  allParameters: number;
  /** Of the optimiser steps alone. */
  pairsPerSecond: number;
  /** Of the whole run. */
  seconds: number;
}
