import { Presets, SingleBar } from "cli-progress";

/** Shows on a terminal's stderr how many items are done, and takes itself away; shows nothing elsewhere. */
export class ItemProgress {
  private readonly bar: SingleBar | undefined;
  private started = false;

  constructor(title: string, unit: string, stream: NodeJS.WriteStream = process.stderr) {
    if (!stream.isTTY) return;
    const format = `${title} {bar} {percentage} % | {value} of {total} ${unit} | {eta_formatted} left`;
    this.bar = new SingleBar(
      { format, stream, hideCursor: true, clearOnComplete: true },
      Presets.shades_classic,
    );
  }

  update(done: number, total: number): void {
    if (this.started) this.bar?.update(done);
    else this.bar?.start(total, done);
    this.started = true;
  }

  stop(): void {
    if (this.started) this.bar?.stop();
    this.started = false;
  }
}
