import { Presets, SingleBar } from "cli-progress";
import type { LogEvent, StartedEvent, StepEvent } from "../../train/events.js";
import { count, duration, rate } from "./terminal.js";

/** How much of the shown loss is the newest step: single steps jump about. */
const NEWEST = 0.05;

/** Shows the optimiser steps on stderr: a bar an epoch on a terminal, a line every logged step elsewhere. */
export class StepProgress {
  private bar: SingleBar | undefined;
  private barEpoch = -1;
  private loss: number | undefined;
  private secondsLeft = 0;

  constructor(
    private readonly run: StartedEvent,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {}

  step(event: StepEvent): void {
    this.loss = this.loss === undefined ? event.loss : this.loss + NEWEST * (event.loss - this.loss);
    this.secondsLeft = event.secondsLeft;
    if (!this.stream.isTTY) return;
    const { stepsPerEpoch, totalSteps } = this.run;
    const done = event.step - event.epoch * stepsPerEpoch;
    const payload = {
      epochs: `${event.epoch + 1}/${this.run.epochs}`,
      loss: this.loss.toFixed(4),
      rate: rate(event.learningRate),
      speed: count(Math.round(event.pairsPerSecond)),
      left: duration(event.secondsLeft),
    };
    if (this.bar === undefined || this.barEpoch !== event.epoch) {
      this.bar?.stop();
      this.bar = this.newBar();
      this.bar.start(Math.min(stepsPerEpoch, totalSteps - event.epoch * stepsPerEpoch), done, payload);
      this.barEpoch = event.epoch;
    } else {
      this.bar.update(done, payload);
    }
  }

  log({ step, loss, learningRate, pairsPerSecond }: LogEvent): void {
    if (this.stream.isTTY) return;
    this.stream.write(
      `step ${count(step)}/${count(this.run.totalSteps)} | loss ${loss.toFixed(4)} | lr ${rate(learningRate)} | ` +
        `${count(Math.round(pairsPerSecond))} pairs/s | ${duration(this.secondsLeft)} left\n`,
    );
  }

  /** Makes room for other output; the next step goes on below it. */
  pause(): void {
    this.bar?.stop();
    this.bar = undefined;
  }

  private newBar(): SingleBar {
    return new SingleBar(
      {
        format:
          "Epoch {epochs} {bar} {value}/{total} | loss {loss} | lr {rate} | {speed} pairs/s | {left} left",
        stream: this.stream,
        hideCursor: true,
        fps: 5,
        barsize: 24,
      },
      Presets.shades_classic,
    );
  }
}
