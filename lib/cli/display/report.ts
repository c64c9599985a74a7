import type { TrainEvent } from "../../train/events.js";
import { jsonLine } from "../../train/json-line.js";

/** Shows a training run while it goes on. */
export interface Report {
  event(event: TrainEvent): void;
  /** A word on stderr that is no event of the run. */
  note(text: string): void;
  /** The run has failed: leave the terminal tidy for the error. */
  failed(): void;
}

const PROGRESS: ReadonlySet<TrainEvent["event"]> = new Set([
  "reading",
  "downloading",
  "preparing",
  "evaluating",
]);

/** `--json`: every event but progress on stdout. */
export class JsonReport implements Report {
  event(event: TrainEvent): void {
    if (event.event === "warning") this.note(`warning: ${event.message}`);
    if (!PROGRESS.has(event.event)) process.stdout.write(`${jsonLine(event)}\n`);
  }

  note(text: string): void {
    process.stderr.write(`${text}\n`);
  }

  failed(): void {}
}

/** `--quiet`: nothing but warnings. */
export class QuietReport implements Report {
  event(event: TrainEvent): void {
    if (event.event === "warning") process.stderr.write(`warning: ${event.message}\n`);
  }

  note(): void {}

  failed(): void {}
}
