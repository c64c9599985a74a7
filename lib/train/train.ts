import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { hubSettings } from "../hub/settings.js";
import { loadEngine } from "../native/load.js";
import type { EngineInfo, NativeEngine } from "../native/types.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { openCheckpoint } from "./checkpoint/checkpoint.js";
import { findCheckpoint, type ResumeSource } from "./checkpoint/find-checkpoint.js";
import { requireSameOptions, requireSameRun } from "./checkpoint/resume.js";
import { withEva } from "./eva-adapter.js";
import { Drift } from "./evaluation/drift.js";
import { EventQueue } from "./event-queue.js";
import type { TrainEvent, TrainResult } from "./events.js";
import { TrainLoop } from "./loop.js";
import { type ResolvedTrainOptions, resolveTrainOptions, type TrainOptions } from "./options/options.js";
import { HubPush } from "./output/hub-push.js";
import { OutputFolder } from "./output/output.js";
import { Tracker } from "./output/tracker.js";
import { logForReport, writeReport } from "./output/write-report.js";
import { loadTrainData, planRun } from "./preparation.js";
import { TrainBatches } from "./step/batches.js";

/** What a run takes from the program around it. */
export interface TrainEnvironment {
  /** Where the engine comes from; for tests, and for programs that set libtorch up first. */
  engine?: (() => NativeEngine | Promise<NativeEngine>) | undefined;
}

export const TRAIN_ENVIRONMENT: OptionNames<TrainEnvironment> = { engine: "function" };

/**
 * Fine-tunes a BERT-family sentence encoder on pairs or triplets: writes a PEFT adapter, or with `usePeft: false` a model folder.
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
  /** Ends what is being fetched from the Hub, or sent there. */
  private readonly downloads = new AbortController();

  constructor(options: TrainOptions, environment: TrainEnvironment) {
    this.result = this.run(options, environment);
    this.result.then(
      () => this.events.end(),
      (error: unknown) => this.events.end({ error }),
    );
  }

  /**
   * Ends the run after the optimiser step in hand, and saves what it trains as it stands if any step was done. `result`
   * then resolves with `stopped`; before the model is loaded it rejects with ABORTED instead.
   */
  stop(): void {
    this.stopping = true;
    this.downloads.abort();
  }

  /** Events of the run from its beginning; the iteration throws what the run throws. */
  [Symbol.asyncIterator](): AsyncIterator<TrainEvent> {
    return this.events[Symbol.asyncIterator]();
  }

  /** Stops the run, and waits until it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await this.result.catch(() => {});
  }

  private async run(given: TrainOptions, environment: TrainEnvironment): Promise<TrainResult> {
    const startedAt = performance.now();
    requireKnownOptions(environment, TRAIN_ENVIRONMENT, "train");
    const options = resolveTrainOptions(given);
    const source = await resumeSource(options);
    const resume = source.checkpoint && (await openCheckpoint(source.checkpoint));
    if (resume !== undefined) requireSameOptions(resume, options);
    const hub = this.hubAccess(options);
    const push = options.pushToHub ? await HubPush.prepare(options, hub) : undefined;
    let plan = await planRun(options, hub);
    await using output = await OutputFolder.open(options.outputDir, {
      overwrite: options.overwriteOutputDir || source.mayReplace,
      goOn: source.inPlace,
    });
    const tell = (event: TrainEvent): void => {
      if (event.event === "reading") this.endIfStopping();
      this.events.push(event);
    };
    for (const message of [...source.warnings, ...plan.warnings]) tell({ event: "warning", message });
    const data = await loadTrainData(plan, tell);
    if (resume !== undefined) requireSameRun(resume, plan, data);
    this.endIfStopping();
    const engine = await (environment.engine ?? loadEngine)();
    for (const message of slowHere(options, engine.info())) tell({ event: "warning", message });
    const opened = {
      weightsPath: plan.model.weightsPath,
      shape: plan.shape,
      pooling: plan.pooling,
      device: options.device,
      threads: options.numThreads,
      activationCheckpointing: options.activationCheckpointing,
      ...(plan.storage && { storage: plan.storage }),
    };
    const native = await engine.open({ ...opened, trainable: plan.adapter === undefined });
    try {
      const base = {
        native,
        onProgress: (done: number, total: number) => tell({ event: "preparing", done, total }),
        stopped: () => this.stopping,
      };
      plan = await withEva(plan, data, base, resume);
      const batches = await TrainBatches.prepare(plan, data, base);
      const drift = data.heldOut && (await Drift.prepare(data.heldOut, options.seed, base));
      using tracker = await Tracker.open(options, output);
      if (tracker.wandbPath !== undefined)
        tell({ event: "tracking", tracker: "wandb", path: tracker.wandbPath });
      const tellAndTrack = (event: TrainEvent): void => {
        tracker.event(event);
        tell(event);
      };
      const loop = new TrainLoop({
        plan,
        data,
        batches,
        drift,
        native,
        output,
        engine: engine.info(),
        resume,
        tell: tellAndTrack,
        stopped: () => this.stopping,
      });
      const result = { ...(await loop.run()), seconds: (performance.now() - startedAt) / 1000 };
      if (push !== undefined && !result.stopped) tell(await push.upload(plan, result));
      const reported = options.report && output.hasSaved;
      if (reported && plan.adapter === undefined) {
        // What the base model gave is asked of another one: that of the run is no longer it.
        await native.close();
        const base = await engine.open(opened);
        await logForReport({ plan, data, base, output }, result).finally(() => base.close());
      } else if (reported) await logForReport({ plan, data, base: native, output }, result);
      await output.log({ event: "finished", ...result });
      if (reported) await writeReport(output);
      tellAndTrack({ event: "finished", ...result });
      return result;
    } finally {
      await native.close();
    }
  }

  private hubAccess(options: ResolvedTrainOptions): HubAccess {
    return {
      settings: hubSettings(options.hubToken ?? undefined),
      signal: this.downloads.signal,
      onNote: (message) => this.events.push({ event: "warning", message }),
      onProgress: (file, bytesRead, bytesTotal) =>
        this.events.push({ event: "downloading", file, bytesRead, bytesTotal }),
    };
  }

  /** While data is read there is nothing to keep yet. */
  private endIfStopping(): void {
    if (!this.stopping) return;
    throw new PeftTrainError("ABORTED", "stopped before training began; nothing was written");
  }
}

/** What to say of options that save no time on this processor; nothing of a GPU. */
function slowHere(
  { mixedPrecision, compute, device, usePeft }: ResolvedTrainOptions,
  engine: EngineInfo,
): string[] {
  if (device !== "cpu") return [];
  const { cpuKernels, fastBfloat16 } = engine;
  const generic = cpuKernels.startsWith("generic");
  const warnings: string[] = [];
  if (compute === "int8" && generic)
    warnings.push("this processor has no AVX2: --compute=int8 saves memory here, and may save no time");
  if (mixedPrecision === "no" || (mixedPrecision === "bf16" && fastBfloat16)) return warnings;
  const faster = [
    ...(fastBfloat16 ? ["--mixed_precision=bf16"] : []),
    ...(generic || !usePeft ? [] : ["--compute=int8"]),
  ];
  const instead = faster.length === 0 ? "" : `; faster: ${faster.join(", ")}`;
  warnings.push(
    `this processor has no products of its own in ${mixedPrecision}: it is slower than float32 here${instead}`,
  );
  return warnings;
}

async function resumeSource(options: ResolvedTrainOptions): Promise<ResumeSource> {
  const { resumeFromCheckpoint, outputDir, overwriteOutputDir } = options;
  if (resumeFromCheckpoint === null) {
    return { checkpoint: undefined, inPlace: false, mayReplace: false, warnings: [] };
  }
  return findCheckpoint(resumeFromCheckpoint, outputDir, overwriteOutputDir);
}

/** What there are thousands of, and what matters only at its moment. */
export function isProgress({ event }: TrainEvent): boolean {
  return (
    event === "step" ||
    event === "reading" ||
    event === "downloading" ||
    event === "preparing" ||
    event === "evaluating"
  );
}
