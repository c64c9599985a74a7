import type { NativeEncoder } from "../../native/types.js";
import type { LoopState } from "../checkpoint/checkpoint.js";
import type { BestEvaluation, EvaluatedEvent, TrainEvent } from "../events.js";
import { measuredAt, type RunSaves } from "../output/run-saves.js";
import type { Plan, TrainData } from "../preparation.js";
import { BestEvaluationTracker } from "./best-evaluation.js";
import { bestMetric } from "./best-metric.js";
import type { Drift } from "./drift.js";
import { evaluateExamples } from "./evaluate.js";
import { scoresLine } from "./scores-line.js";

interface EvaluationParts {
  plan: Plan;
  data: TrainData;
  /** Measured beside every evaluation. */
  drift: Drift | undefined;
  native: NativeEncoder;
  tell: (event: TrainEvent) => void;
  stopped: () => boolean;
}

/** The evaluations of a run: makes them, and knows which is the best and whether to wait for a better one. */
export class RunEvaluations {
  /** Undefined without an evaluation set. */
  private readonly tracker: BestEvaluationTracker | undefined;

  constructor(
    private readonly parts: EvaluationParts,
    /** Of the run as it stands; evaluations are added to it. */
    private readonly state: LoopState,
    private readonly saves: RunSaves,
  ) {
    const { options } = parts.plan;
    const { evaluation } = parts.data;
    if (evaluation === undefined) return;
    this.tracker = new BestEvaluationTracker(bestMetric(options, evaluation.kind), {
      evaluations: options.earlyStoppingPatience,
      threshold: options.earlyStoppingThreshold ?? 0,
    });
  }

  /** Takes in those of the run that is resumed. */
  goOn(): void {
    for (const evaluation of this.state.evaluations) this.tracker?.see(evaluation);
  }

  get best(): BestEvaluation | undefined {
    return this.tracker?.best;
  }

  /** Of what is in the output folder, where the best one is kept there and one is known. */
  get kept(): BestEvaluation | undefined {
    return this.parts.plan.options.loadBestModelAtEnd ? this.best : undefined;
  }

  get outOfPatience(): boolean {
    return this.tracker?.outOfPatience === true;
  }

  /** Whether `--eval_steps=N` asks for an evaluation that was not made. */
  get isDue(): boolean {
    const { step, evaluations } = this.state;
    const { evalSteps } = this.parts.plan.options;
    return (
      typeof evalSteps === "number" && step % evalSteps === 0 && measuredAt(step, evaluations) === undefined
    );
  }

  /** Measures the evaluation set, if there is one, and keeps what is trained where it is the best; false when it was stopped. */
  async measure(epoch: number): Promise<boolean> {
    const { plan, data, drift, native, tell, stopped } = this.parts;
    const { state, saves, tracker } = this;
    if (data.evaluation === undefined || tracker === undefined) return true;
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
    const evaluation = { epoch, step: state.step, metrics };
    state.evaluations.push(evaluation);
    const isBest = tracker.see(evaluation);
    const evaluated: EvaluatedEvent = { event: "evaluated", ...evaluation, seconds };
    await saves.tellAndLog(evaluated);
    if (plan.options.report && scores !== undefined) {
      await saves.log(scoresLine(evaluated, data.evaluation, scores));
    }
    if (isBest && plan.options.loadBestModelAtEnd) await saves.save(epoch);
    return true;
  }
}
