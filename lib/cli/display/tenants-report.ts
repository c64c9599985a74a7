import { headline } from "../../train/evaluation/headline.js";
import type { TenantEvent, TenantOutcome } from "../../train/many/train-many.js";
import { count, counted, duration, metric, rate, shortPath, table } from "./terminal.js";

/** Runs of several tenants for people: a line an event with the tenant before it, and a table at the end. */
export class TenantsReport {
  private readonly steps = new Map<string, number>();

  constructor(
    private readonly quiet: boolean,
    private readonly json: boolean,
  ) {}

  event(event: TenantEvent): void {
    const line = this.lineOf(event);
    if (line === undefined || (this.quiet && event.event !== "warning")) return;
    const stream = event.event === "warning" || event.event === "log" ? process.stderr : process.stdout;
    stream.write(`${event.tenant} | ${line}\n`);
  }

  note(text: string): void {
    if (!this.quiet || this.json) process.stderr.write(`${text}\n`);
  }

  finished(outcomes: readonly TenantOutcome[]): void {
    if (this.quiet) return;
    const rows = outcomes.map(({ tenant, result, error }) => {
      if (result === undefined) return [tenant, "", "", "", "", error instanceof Error ? "failed" : ""];
      const [first, last] = [result.evaluations[0], result.evaluations.at(-1)].map(
        (evaluation) => evaluation && headline(evaluation.metrics),
      );
      return [
        tenant,
        count(result.steps),
        last?.name ?? "",
        first === undefined ? "" : metric(first.value),
        last === undefined ? "" : metric(last.value),
        result.stopped ? `stopped: ${shortPath(result.outputDir)}` : shortPath(result.outputDir),
      ];
    });
    const head = ["Tenant", "Steps", "Metric", "Before", "After", "Adapter"];
    process.stdout.write(`${table(head, rows, { right: [1, 3, 4] })}\n`);
  }

  private lineOf(event: TenantEvent): string | undefined {
    switch (event.event) {
      case "warning":
        return `warning: ${event.message}`;
      case "started":
        this.steps.set(event.tenant, event.totalSteps);
        return `${count(event.trainPairs)} to train on, ${counted(event.totalSteps, "step")}, LoRA on ${counted(event.adaptedModules, "module")}`;
      case "resumed":
        return `going on from ${shortPath(event.path)}: ${count(event.step)} steps are done`;
      case "evaluated": {
        const { name, value } = headline(event.metrics);
        const when = event.step === 0 ? "before training" : `after step ${count(event.step)}`;
        return `${name} ${metric(value)} ${when}`;
      }
      case "log":
        return (
          `step ${count(event.step)}/${count(this.steps.get(event.tenant) ?? 0)} | loss ${event.loss.toFixed(4)} | ` +
          `lr ${rate(event.learningRate)}`
        );
      case "skipped":
        return `step ${count(event.step)} skipped: the gradient of ${event.tensor} overflowed float16`;
      case "saved":
        return `saved ${shortPath(event.path)} (step ${count(event.step)})`;
      case "pushed":
        return `uploaded to ${event.url}`;
      case "finished":
        return `${event.stopped ? "stopped" : "done"} after ${duration(event.seconds)}`;
      default:
        return undefined;
    }
  }
}
