import path from "node:path";
import type { EvalMetrics } from "../../train/evaluation/evaluate.js";
import type {
  BestEvaluation,
  EvaluatedEvent,
  StartedEvent,
  TrainEvent,
  TrainResult,
} from "../../train/events.js";
import type { ResolvedTrainOptions } from "../../train/options/options.js";
import { shellQuote } from "../arguments.js";
import { ByteProgress } from "./byte-progress.js";
import { ItemProgress } from "./item-progress.js";
import { isInformative, memoryTable } from "./memory-table.js";
import { evaluationTable, headline } from "./metrics.js";
import { nextCommands, nextSteps } from "./next-commands.js";
import { outputTable } from "./output-table.js";
import type { Report } from "./report.js";
import { StepProgress } from "./step-progress.js";
import { bold, count, counted, duration, metric, shortPath } from "./terminal.js";

interface Bytes {
  bytesRead: number;
  bytesTotal: number;
}

/** A training run for people: progress and warnings on stderr, results on stdout. */
export class TrainReport implements Report {
  private reading: { path: string; progress: ByteProgress } | undefined;
  private evaluating: ItemProgress | undefined;
  private steps: StepProgress | undefined;
  private started: StartedEvent | undefined;
  private before: number | null = null;

  constructor(
    protected readonly options: ResolvedTrainOptions,
    private readonly next: (result: TrainResult) => string[] = (result) => nextCommands(options, result),
  ) {}

  event(event: TrainEvent): void {
    switch (event.event) {
      case "warning":
        this.note(`warning: ${event.message}`);
        break;
      case "reading":
        this.read(event.path, `Reading ${path.basename(event.path)}`, event);
        break;
      case "downloading":
        this.read(event.file, `Downloading ${event.file}`, event);
        break;
      case "started":
        this.start(event);
        break;
      case "memory":
        if (isInformative(event)) this.print(memoryTable(event, this.options.usePeft));
        break;
      case "resumed":
        this.before = event.metricsBefore && headline(event.metricsBefore).value;
        this.print(`Going on from ${shortPath(event.path)}: ${count(event.step)} steps are done`);
        break;
      case "preparing":
        this.evaluate("Embedding", "texts", event);
        break;
      case "evaluating":
        this.evaluate("Evaluating", "examples", event);
        break;
      case "evaluated":
        this.evaluated(event);
        break;
      case "step":
        this.steps?.step(event);
        break;
      case "log":
        this.steps?.log(event);
        break;
      case "skipped":
        this.note(
          `step ${count(event.step)} skipped: the gradient of ${event.tensor} overflowed float16; the loss scale is ${count(event.lossScale)} now`,
        );
        break;
      case "saved":
        this.clear();
        this.print(`Saved ${shortPath(event.path)} (step ${count(event.step)})`);
        break;
      case "tracking":
        this.note(`Weights & Biases: upload the run with: wandb sync ${shellQuote(shortPath(event.path))}`);
        break;
      case "pushed":
        this.print(`Uploaded to ${event.url}`);
        break;
      case "finished":
        this.finished(event);
        break;
    }
  }

  note(text: string): void {
    this.clear();
    process.stderr.write(`${text}\n`);
  }

  failed(): void {
    this.clear();
  }

  private read(file: string, title: string, { bytesRead, bytesTotal }: Bytes): void {
    if (this.reading?.path !== file) {
      this.reading?.progress.stop();
      this.reading = { path: file, progress: new ByteProgress(title) };
    }
    this.reading.progress.update(bytesRead, bytesTotal);
  }

  private start(event: StartedEvent): void {
    this.clear();
    this.started = event;
    this.steps = new StepProgress(event);
    const evaluated = event.evalPairs > 0 ? `, ${count(event.evalPairs)} to evaluate on` : "";
    const pairs = this.options.negativeColumn === null && this.options.teacherEmbeddings === null;
    const what = pairs ? "pairs" : "examples";
    this.print(`${bold(event.model)}: ${count(event.trainPairs)} ${what} to train on${evaluated}`);
    const trained =
      event.adaptedModules === 0
        ? "all parameters train"
        : `LoRA on ${counted(event.adaptedModules, "module")}`;
    const length = `${counted(event.epochs, "epoch")}, ${counted(event.totalSteps, "step")}`;
    this.print(`${length}, ${trained}, ${event.device}, ${counted(event.threads, "thread")}`);
    this.print(trainableParameters(event.trainableParameters, event.allParameters));
    if (event.evalPairs === 0) {
      this.note(
        "note: nothing to evaluate on; give --eval_dataset_name or --eval_fraction to see how good it is",
      );
    }
  }

  private evaluate(title: string, unit: string, { done, total }: { done: number; total: number }): void {
    if (this.evaluating === undefined) this.clear();
    this.evaluating ??= new ItemProgress(title, unit);
    this.evaluating.update(done, total);
    if (done === total) this.clear();
  }

  private evaluated({ epoch, step, metrics }: EvaluatedEvent): void {
    this.clear();
    const { name, value } = headline(metrics);
    if (step === 0) this.before = value;
    const { epochs = 0, stepsPerEpoch = 1, totalSteps = 0 } = this.started ?? {};
    const ended = step % stepsPerEpoch === 0 || step === totalSteps;
    const after = ended ? `epoch ${epoch}/${epochs}` : `step ${count(step)}/${count(totalSteps)}`;
    const when = step === 0 ? "before training" : `after ${after}`;
    const change = step === 0 ? "" : `${this.gain(value)}${drifted(metrics)}`;
    this.print(`${name} ${when}: ${bold(metric(value))}${change}`);
  }

  private gain(value: number | null): string {
    if (value === null || this.before === null) return "";
    const gain = value - this.before;
    return ` (${gain < 0 ? "" : "+"}${gain.toFixed(4)})`;
  }

  private finished(result: TrainResult): void {
    this.clear();
    if (result.evaluations.length > 0) {
      this.print(evaluationTable(result.evaluations, result.best?.step));
    }
    if (result.savedStep === null) {
      this.print("Stopped before the first step: nothing was written.");
      return;
    }
    if (result.stopped) {
      this.print(
        `Stopped. Kept: the ${this.kept} as it stood after step ${count(result.savedStep)}, in ${shortPath(result.outputDir)}`,
      );
    }
    if (result.stoppedEarly) {
      const waited = this.options.earlyStoppingPatience as number;
      const evaluations = waited === 1 ? "evaluation" : `${count(waited)} evaluations`;
      this.print(
        `Ended early, after step ${count(result.steps)}: the last ${evaluations} brought no gain in ${result.best?.metric}.`,
      );
    }
    if (result.best !== null) this.printBest(result, result.best);
    this.print(outputTable(result.outputDir));
    const speed = count(Math.round(result.pairsPerSecond));
    this.print(`${counted(result.steps, "step")} in ${duration(result.seconds)}, ${speed} pairs/s.`);
    const next = this.next(result);
    if (next.length > 0) this.print(nextSteps(next));
  }

  private printBest({ savedStep }: TrainResult, { metric: name, value, step }: BestEvaluation): void {
    const best = `${name} ${metric(value)}, after step ${count(step)}`;
    if (this.options.loadBestModelAtEnd) this.print(`The ${this.kept} is the best one: ${best}.`);
    else if (step !== savedStep) {
      this.note(`note: the best one was not the last: ${best}; --load_best_model_at_end would have kept it`);
    }
  }

  private get kept(): string {
    return this.options.usePeft ? "adapter" : "model";
  }

  private print(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  private clear(): void {
    this.reading?.progress.stop();
    this.reading = undefined;
    this.evaluating?.stop();
    this.evaluating = undefined;
    this.steps?.pause();
  }
}

function drifted({ baseCosine }: EvalMetrics): string {
  return baseCosine === undefined ? "" : `, cosine to the base model ${metric(baseCosine)}`;
}

/** As PEFT's print_trainable_parameters prints it. */
export function trainableParameters(trainable: number, all: number): string {
  const percentage = ((100 * trainable) / all).toFixed(4);
  return `trainable params: ${count(trainable)} || all params: ${count(all)} || trainable%: ${percentage}`;
}
