import type { CurveLine } from "../../report/lines.js";
import type { StepEvent } from "../events.js";

/** Points of a run's curve. */
const POINTS = 1000;

/** Collects what each step gave until it is written, as means over so many steps that the log stays small. */
export class LossCurve {
  private readonly stepsPerPoint: number;
  private line = emptyLine();
  private sum = { steps: 0, loss: 0, pairs: 0, seconds: 0 };
  private last: StepEvent | undefined;

  constructor(totalSteps: number) {
    this.stepsPerPoint = Math.ceil(totalSteps / POINTS);
  }

  push(event: StepEvent, seconds: number): void {
    this.sum.steps++;
    this.sum.loss += event.loss;
    this.sum.pairs += event.pairs;
    this.sum.seconds += seconds;
    this.last = event;
    if (this.sum.steps === this.stepsPerPoint) this.endPoint();
  }

  /** What has not been taken yet, if there is any; its last point may be of fewer steps. */
  take(): CurveLine | undefined {
    this.endPoint();
    const { line } = this;
    this.line = emptyLine();
    return line.steps.length === 0 ? undefined : line;
  }

  private endPoint(): void {
    const { sum, line, last } = this;
    if (last === undefined || sum.steps === 0) return;
    line.steps.push(last.step);
    line.losses.push(rounded(sum.loss / sum.steps));
    line.learningRates.push(rounded(last.learningRate));
    line.pairsPerSecond.push(sum.seconds === 0 ? 0 : rounded(sum.pairs / sum.seconds));
    this.sum = { steps: 0, loss: 0, pairs: 0, seconds: 0 };
  }
}

function emptyLine(): CurveLine {
  return { event: "curve", steps: [], losses: [], learningRates: [], pairsPerSecond: [] };
}

/** More digits than a chart shows. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
