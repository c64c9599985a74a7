import type { BestEvaluation, Evaluation } from "../events.js";
import { type BestMetric, metricValue } from "./best-metric.js";

export interface Patience {
  /** Evaluations in a row that may bring nothing; null waits for ever. */
  evaluations: number | null;
  /** What is no more than this better than the best so far counts as nothing. */
  threshold: number;
}

/**
 * Which evaluation of a run is its best, and whether it has waited long enough for a better one: as transformers' Trainer
 * and its EarlyStoppingCallback. A function of the evaluations alone, so that a run that goes on shows it those of before.
 */
export class BestEvaluationTracker {
  best: BestEvaluation | undefined;
  private waited = 0;

  constructor(
    private readonly metric: BestMetric,
    private readonly patience: Patience,
  ) {}

  /** Takes the next evaluation; true where it is the best so far. The one before training is no candidate. */
  see({ step, epoch, metrics }: Evaluation): boolean {
    if (step === 0) return false;
    const value = metricValue(metrics, this.metric);
    const gain = this.gainOf(value);
    // The threshold is patience's alone: a smaller gain makes a best model all the same.
    this.waited = this.best === undefined || gain > this.patience.threshold ? 0 : this.waited + 1;
    if (value === null || gain <= 0) return false;
    this.best = { metric: this.metric.name, value, step, epoch };
    return true;
  }

  get outOfPatience(): boolean {
    return this.patience.evaluations !== null && this.waited >= this.patience.evaluations;
  }

  private gainOf(value: number | null): number {
    if (value === null) return 0;
    if (this.best === undefined) return Number.POSITIVE_INFINITY;
    return this.metric.greaterIsBetter ? value - this.best.value : this.best.value - value;
  }
}
