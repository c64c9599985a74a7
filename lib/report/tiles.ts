import { count, duration, metric, size } from "../format.js";
import { headline } from "../train/evaluation/headline.js";
import type { EvaluatedEvent } from "../train/events.js";
import { html, type Markup } from "./html.js";
import type { RunLog } from "./run-log.js";

interface Tile {
  name: string;
  value: string;
  note?: string;
}

/** The few numbers that people ask for first. */
export function tiles(
  log: RunLog,
  { before, after }: { before: EvaluatedEvent | undefined; after: EvaluatedEvent | undefined },
): Markup {
  const shown = [...quality(before, after), ...length(log), ...cost(log)];
  return html`<dl class="tiles">${shown.map(
    ({
      name,
      value,
      note,
    }) => html`<div class="card"><dt>${name}</dt><dd>${value}</dd>${note !== undefined && html`<dd class="note">${note}</dd>`}</div>
`,
  )}</dl>`;
}

function quality(before: EvaluatedEvent | undefined, after = before): Tile[] {
  if (after === undefined) return [];
  const { name, value } = headline(after.metrics);
  const was = before === undefined || before === after ? null : headline(before.metrics).value;
  const change = was === null || value === null ? "" : `, ${signed(value - was)}`;
  const tile: Tile = {
    name,
    value: metric(value),
    note: was === null ? "before training" : `before training ${metric(was)}${change}`,
  };
  if (!("accuracyThreshold" in after.metrics)) return [tile];
  const { accuracy, accuracyThreshold } = after.metrics;
  const note = `cosine that counts as alike; accuracy ${metric(accuracy)}`;
  return [tile, { name: "Best threshold", value: accuracyThreshold.toFixed(4), note }];
}

function length({ started, finished, resumedAt, curve, logs }: RunLog): Tile[] {
  const steps = finished?.steps ?? curve.steps.at(-1) ?? logs.at(-1)?.step ?? 0;
  const total = Math.max(steps, started.totalSteps);
  const tile = {
    name: "Steps",
    value: count(steps),
    note:
      steps < total
        ? `of ${count(total)}`
        : `${count(started.epochs)} ${started.epochs === 1 ? "epoch" : "epochs"}`,
  };
  if (finished === undefined) return [tile];
  const since = resumedAt.at(-1);
  const note =
    since === undefined ? "with reading and evaluating" : `since it went on from step ${count(since)}`;
  return [tile, { name: "Time", value: duration(finished.seconds), note }];
}

function cost({ started, finished, memory, report, logs }: RunLog): Tile[] {
  const speed = finished?.pairsPerSecond ?? logs.at(-1)?.pairsPerSecond;
  const threads = `${started.threads} ${started.threads === 1 ? "thread" : "threads"}`;
  const tiles: Tile[] = [
    {
      name: "Trained parameters",
      value: count(started.trainableParameters),
      note: `${((100 * started.trainableParameters) / started.allParameters).toFixed(2)} % of all`,
    },
  ];
  if (speed !== undefined && speed > 0) {
    const note = `a second, ${started.device}${started.device === "cpu" ? `, ${threads}` : ""}`;
    tiles.unshift({ name: "Examples", value: count(Math.round(speed)), note });
  }
  const peak = report?.peakResidentBytes;
  if (peak !== undefined)
    tiles.push({ name: "Memory", value: size(peak), note: "the process at its peak, libtorch and all" });
  else if (memory !== undefined)
    tiles.push({ name: "Memory", value: size(memory.peak), note: "as planned, beside libtorch" });
  return tiles;
}

/** +0.0421 */
export function signed(value: number): string {
  return `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(4)}`;
}
