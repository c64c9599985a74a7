import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type ErrorCode, PeftTrainError } from "../../errors.js";

const BIN = fileURLToPath(new URL("../../../bin/peft-train.js", import.meta.url));

/** The longest that is waited between a step's event and the kill: over several steps and saves of a small model. */
const MOST_WAIT_MS = 200;

/** A training run in a process of its own, with `--json`. */
export class ChildRun {
  /** Step of the checkpoint that it began from; null: from the beginning. */
  resumedFrom: number | null = null;
  private step = 0;
  private error: PeftTrainError | undefined;
  private onStep: (step: number) => void = () => {};
  private readonly child: ChildProcess;
  private readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;

  constructor(args: readonly string[]) {
    const child = spawn(process.execPath, [BIN, ...args], { stdio: ["ignore", "pipe", "ignore"] });
    this.child = child;
    createInterface({ input: child.stdout }).on("line", (line) => this.read(line));
    this.ended = new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve({ code, signal }));
    });
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  /** @throws What the run failed with. */
  async finished(): Promise<void> {
    const { code, signal } = await this.ended;
    if (code !== 0) throw this.failure(code, signal);
  }

  /** Kills it at a random moment after it has told of step `target`; `step` is the last that it told of. */
  async killedAfter(target: number): Promise<{ step: number; resumedFrom: number | null }> {
    this.onStep = (step) => {
      if (step < target) return;
      this.onStep = () => {};
      setTimeout(() => this.kill(), MOST_WAIT_MS * Math.random());
    };
    const { code, signal } = await this.ended;
    if (signal !== "SIGKILL" && code !== 0) throw this.failure(code, signal);
    return { step: this.step, resumedFrom: this.resumedFrom };
  }

  private read(line: string): void {
    let event: { event?: string; step?: number; code?: ErrorCode; message?: string; hint?: string };
    try {
      event = JSON.parse(line);
    } catch {
      return; // the last line of a killed run may be half there
    }
    if (event.event === "resumed") this.resumedFrom = event.step ?? null;
    if (event.event === "step") {
      this.step = event.step ?? 0;
      this.onStep(this.step);
    }
    if (event.event === "error") {
      const { code = "INTERNAL", message = "", hint } = event;
      this.error = new PeftTrainError(code, message, hint === undefined ? {} : { hint });
    }
  }

  private failure(code: number | null, signal: NodeJS.Signals | null): PeftTrainError {
    const how = signal === null ? `with exit code ${code}` : `by ${signal}`;
    return this.error ?? new PeftTrainError("INTERNAL", `a training run ended ${how}`);
  }
}
