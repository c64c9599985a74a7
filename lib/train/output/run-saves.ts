import { copyDurably } from "../../adapter/durable.js";
import { PeftTrainError } from "../../errors.js";
import { sha256 } from "../../model/fingerprint.js";
import type { EngineInfo, NativeEncoder } from "../../native/types.js";
import type { Checkpoint, LoopState, Machine, RunIdentity } from "../checkpoint/checkpoint.js";
import type { BestEvaluation, Evaluation, TrainEvent } from "../events.js";
import { runConfig } from "../options/run-config.js";
import type { Plan, TrainData } from "../preparation.js";
import type { LossCurve } from "./loss-curve.js";
import type { OutputFolder } from "./output.js";
import type { SavedContent } from "./output-content.js";
import { savedContent } from "./saved-content.js";
import { weightsFileFor } from "./saved-model.js";

interface SaveParts {
  plan: Plan;
  data: TrainData;
  native: NativeEncoder;
  output: OutputFolder;
  engine: EngineInfo;
  tell: (event: TrainEvent) => void;
}

/** What a run has written: its log, the adapter or model in its output folder, its newest checkpoint. */
export class RunSaves {
  /** Step of the weights in the output folder. */
  savedStep: number | null = null;
  checkpoint: { path: string; step: number } | undefined;

  constructor(
    private readonly parts: SaveParts,
    private readonly identity: RunIdentity,
    /** Of the run as it stands. */
    private readonly state: Readonly<LoopState>,
    private readonly curve: LossCurve | undefined,
  ) {}

  async tellAndLog(event: TrainEvent): Promise<void> {
    await this.log(event);
    this.parts.tell(event);
  }

  log(line: object): Promise<void> {
    return this.keepingLast(() => this.parts.output.log(line));
  }

  /** Puts what was trained, as it stands, into the output folder. */
  async save(epoch: number): Promise<void> {
    const { output, plan } = this.parts;
    const { step } = this.state;
    await this.logCurve();
    const content = this.content(step, epoch);
    const files = await this.keepingLast(() => output.save(content, runConfig(plan.options)));
    this.savedStep = step;
    await this.tellAndLog({ event: "saved", path: output.path, step, epoch, files });
  }

  /** @param best Of the weights in the output folder, where those are the best: a checkpoint takes them along. */
  async saveCheckpoint(
    name: string,
    epoch: number,
    machine: Machine,
    best: BestEvaluation | undefined,
  ): Promise<void> {
    const { output, plan, native } = this.parts;
    const { state, identity } = this;
    const content = {
      state,
      identity,
      machine,
      saveOptimizer: (file: string) => native.saveOptimizer(file),
      withBest: best !== undefined && best.step !== state.step,
    };
    const { saveTotalLimit } = plan.options;
    await this.logCurve();
    const saved = await this.keepingLast(() =>
      output.saveCheckpoint(name, this.content(state.step, epoch), content, saveTotalLimit),
    );
    this.checkpoint = { path: saved.path, step: saved.step };
    await this.tellAndLog({ event: "saved", ...saved });
  }

  /**
   * Puts the best weights that a checkpoint knows of into the output folder: what is there may be of steps beyond the
   * checkpoint, and another folder has none.
   */
  async restoreBest(
    { state, weightsPath, bestWeightsPath }: Checkpoint,
    best: BestEvaluation,
  ): Promise<void> {
    const { output, plan } = this.parts;
    const weights = best.step === state.step ? weightsPath : bestWeightsPath;
    if (this.savedStep === best.step) {
      const [there, expected] = await Promise.all([
        sha256(output.at(weightsFileFor(plan.options.usePeft))),
        sha256(weights),
      ]);
      if (there.hash === expected.hash) return;
    }
    const content: SavedContent = {
      ...this.content(best.step, best.epoch),
      saveWeights: (file) => copyDurably(weights, file),
    };
    await this.keepingLast(() => output.save(content, runConfig(plan.options)));
    this.savedStep = best.step;
  }

  /** Before a save, so that a checkpoint has the whole of it. */
  private async logCurve(): Promise<void> {
    const line = this.curve?.take();
    if (line !== undefined) await this.log(line);
  }

  /** What a failed run leaves, for its message. */
  get kept(): string {
    return this.savedStep === null
      ? "nothing was saved"
      : `${this.parts.output.path} holds the ${this.parts.plan.adapter ? "adapter" : "model"} of step ${this.savedStep}`;
  }

  private content(step: number, epoch: number): SavedContent {
    const { plan, data, native } = this.parts;
    const { evaluations } = this.state;
    return savedContent(plan, data, native, {
      step,
      epoch,
      before: evaluations[0]?.metrics,
      now: measuredAt(step, evaluations)?.metrics,
    });
  }

  /** Where nothing can be written any more, what can be gone on from is worth more than the reason. */
  private async keepingLast<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (error) {
      if (!(error instanceof PeftTrainError) || error.code !== "OUTPUT_UNWRITABLE") throw error;
      const { message, code } = error;
      const at = `step ${this.state.step} of ${this.identity.totalSteps}`;
      if (this.checkpoint === undefined) {
        throw new PeftTrainError(code, `${at}: ${message} (there is no checkpoint; ${this.kept})`, {
          hint: "Make room or give another --output_dir; with --checkpointing_steps a run can go on from where it was.",
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
}

/** The evaluation of the weights of a step, if there was one. */
export function measuredAt(step: number | null, evaluations: readonly Evaluation[]): Evaluation | undefined {
  return evaluations.findLast((evaluation) => evaluation.step === step);
}
