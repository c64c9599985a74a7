import { Presets, SingleBar } from "cli-progress";
import { timeLeft } from "./terminal.js";

const MIB = 1024 * 1024;

/** Shows on stderr how much of a file has been read: a bar on a terminal, a line a quarter elsewhere. */
export class ByteProgress {
  private readonly bar: SingleBar | undefined;
  private started = false;
  private quarters = 0;
  private readonly startedAt = performance.now();

  constructor(
    private readonly title: string,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {
    if (!stream.isTTY) return;
    const format = `${title} {bar} {percentage} % | {read} of {size} MB | {speed} MB/s | {left} left`;
    this.bar = new SingleBar(
      { format, stream, hideCursor: true, clearOnComplete: true },
      Presets.shades_classic,
    );
  }

  /** @param bytesTotal 0 where it is not known, as for a pipe; then there is nothing to show. */
  update(bytesRead: number, bytesTotal: number): void {
    if (bytesTotal === 0) return;
    if (this.bar === undefined) {
      const quarters = Math.floor((4 * bytesRead) / bytesTotal);
      if (quarters > this.quarters) this.stream.write(`${this.title}: ${25 * quarters} %\n`);
      this.quarters = quarters;
      return;
    }
    const payload = {
      read: (bytesRead / MIB).toFixed(1),
      size: (bytesTotal / MIB).toFixed(1),
      speed: (bytesRead / MIB / Math.max(1e-3, (performance.now() - this.startedAt) / 1000)).toFixed(1),
      left: timeLeft(this.startedAt, bytesRead, bytesTotal),
    };
    if (this.started) this.bar.update(bytesRead, payload);
    else this.bar.start(bytesTotal, bytesRead, payload);
    this.started = true;
  }

  /** Takes the bar away; safe to call twice. */
  stop(): void {
    this.bar?.stop();
  }
}
