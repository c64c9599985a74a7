import { PeftTrainError } from "../../errors.js";

/** As torch.amp.GradScaler. */
const FIRST = 65_536;
const STEPS_TO_GROW = 2000;

export interface LossScaleState {
  scale: number;
  /** Steps in a row whose gradients were finite. */
  finite: number;
  /** Steps of the run that were skipped. */
  skipped: number;
}

/** The loss scale of float16 training: halved with every overflow, doubled after 2,000 steps without one. */
export class LossScale {
  private current: LossScaleState = { scale: FIRST, finite: 0, skipped: 0 };

  get scale(): number {
    return this.current.scale;
  }

  get state(): LossScaleState {
    return { ...this.current };
  }

  restore(state: LossScaleState): void {
    this.current = { ...state };
  }

  /**
   * Takes in what a step came to.
   * @param notFinite The tensor whose gradient overflowed; the step was skipped then.
   * @throws NOT_FINITE where it overflows with a scale of 1: the scale is not what it is about.
   */
  update(notFinite: string | undefined): void {
    const { scale, finite, skipped } = this.current;
    if (notFinite === undefined) {
      const grows = finite + 1 === STEPS_TO_GROW;
      this.current = { scale: grows ? 2 * scale : scale, finite: grows ? 0 : finite + 1, skipped };
      return;
    }
    if (scale === 1) {
      throw new PeftTrainError(
        "NOT_FINITE",
        `the gradient of ${notFinite} overflows float16, down to a loss scale of 1`,
        { hint: "Lower --learning_rate, or train with --mixed_precision=bf16 or no." },
      );
    }
    this.current = { scale: scale / 2, finite: 0, skipped: skipped + 1 };
  }
}
