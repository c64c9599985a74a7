import { Presets, SingleBar } from "cli-progress";
import { count, timeLeft } from "./terminal.js";

/** Shows on a terminal's stderr how many items are done, and takes itself away; shows nothing elsewhere. */
export class ItemProgress {
  private bar: SingleBar | undefined;
  private readonly startedAt = performance.now();

  constructor(
    private readonly title: string,
    private readonly unit: string,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {}

  update(done: number, total: number): void {
    if (!this.stream.isTTY) return;
    const payload = {
      done: count(done),
      all: count(total),
      left: timeLeft(this.startedAt, done, total),
    };
    if (this.bar !== undefined) {
      this.bar.update(done, payload);
      return;
    }
    const format = `${this.title} {bar} {done}/{all} ${this.unit} | {left} left`;
    const { stream } = this;
    const options = { format, stream, hideCursor: true, clearOnComplete: true, barsize: 24 };
    this.bar = new SingleBar(options, Presets.shades_classic);
    this.bar.start(total, done, payload);
  }

  stop(): void {
    this.bar?.stop();
    this.bar = undefined;
  }
}
