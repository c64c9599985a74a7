import { PeftTrainError } from "../errors.js";
import { loadEngine } from "../native/load.js";
import type { NativeEngine } from "../native/types.js";
import { EventQueue } from "./event-queue.js";
import type { TrainEvent, TrainResult } from "./events.js";
import { TrainLoop } from "./loop.js";
import { resolveTrainOptions, type TrainOptions } from "./options.js";
import { OutputFolder } from "./output.js";
import { loadTrainData, planRun } from "./preparation.js";

export interface TrainEnvironment {
  /** Where the engine comes from; for tests, and for programs that set libtorch up first. */
  engine?: (() => NativeEngine | Promise<NativeEngine>) | undefined;
}

/**
 * Fine-tunes a BERT-family sentence encoder with LoRA on pairs or triplets and writes a PEFT adapter.
 *
 * The run starts at once. Iterate it for its events, await `result` for its outcome, or both; leaving the iteration
 * does not end it, `stop()` or `await using` does. Events of single steps and of reading and evaluating are told only
 * while somebody iterates; the others wait.
 *
 * @example
 * const run = train({ modelNameOrPath: "models/e5-small-v2", datasetName: "train.csv", outputDir: "out" });
 * for await (const event of run) if (event.event === "log") console.log(event.step, event.loss);
 * const { outputDir } = await run.result;
 */
export function train(options: TrainOptions, environment: TrainEnvironment = {}): TrainRun {
  return new TrainRun(options, environment);
}

/** A training run that is going on. */
export class TrainRun implements AsyncIterable<TrainEvent>, AsyncDisposable {
  /** Rejects as the iteration throws: with a PeftTrainError where something was expected and not found. */
  readonly result: Promise<TrainResult>;
  private readonly events = new EventQueue<TrainEvent>(isProgress);
  private stopping = false;

  constructor(options: TrainOptions, environment: TrainEnvironment) {
    this.result = this.run(options, environment);
    this.result.then(
      () => this.events.end(),
      (error: unknown) => this.events.end({ error }),
    );
  }

  /**
   * Ends the run after the optimiser step in hand, and saves the adapter as it stands if any step was done. `result`
   * then resolves with `stopped`; before the model is loaded it rejects with ABORTED instead.
   */
  stop(): void {
    this.stopping = true;
  }

  [Symbol.asyncIterator](): AsyncIterator<TrainEvent> {
    return this.events[Symbol.asyncIterator]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await this.result.catch(() => {});
  }

  private async run(given: TrainOptions, environment: TrainEnvironment): Promise<TrainResult> {
    const startedAt = performance.now();
    const options = resolveTrainOptions(given);
    const plan = await planRun(options);
    await using output = await OutputFolder.open(options.outputDir, options.overwriteOutputDir);
    const tell = (event: TrainEvent): void => {
      if (event.event === "reading") this.endIfStopping();
      this.events.push(event);
    };
    for (const message of plan.warnings) tell({ event: "warning", message });
    const data = await loadTrainData(plan, tell);
    this.endIfStopping();
    const engine = await (environment.engine ?? loadEngine)();
    if (options.compute === "int8" && engine.info().cpuKernels !== "avx512") {
      const message = "this processor has no AVX-512 VNNI: --compute=int8 saves memory here, but no time";
      tell({ event: "warning", message });
    }
    const native = await engine.open({
      weightsPath: plan.model.weightsPath,
      shape: plan.shape,
      pooling: plan.pooling,
      device: options.device,
      threads: options.numThreads,
      activationCheckpointing: options.activationCheckpointing,
      ...(plan.storage && { storage: plan.storage }),
    });
    try {
      const loop = new TrainLoop({ plan, data, native, output, tell, stopped: () => this.stopping });
      const result = { ...(await loop.run()), seconds: (performance.now() - startedAt) / 1000 };
      await output.log({ event: "finished", ...result });
      tell({ event: "finished", ...result });
      return result;
    } finally {
      await native.close();
    }
  }

  /** While data is read there is nothing to keep yet. */
  private endIfStopping(): void {
    if (!this.stopping) return;
    throw new PeftTrainError("ABORTED", "stopped before training began; nothing was written");
  }
}

/** What there are thousands of, and what matters only at its moment. */
function isProgress({ event }: TrainEvent): boolean {
  return event === "step" || event === "reading" || event === "evaluating";
}
