import { metric, size } from "../format.js";
import type { EvaluatedEvent, MemoryEvent } from "../train/events.js";
import { type OptionDefinition, TRAIN_OPTIONS } from "../train/options/option-table.js";
import { html, type Markup } from "./html.js";
import { signed } from "./tiles.js";

const METRIC_NAMES: Record<string, string> = {
  rocAuc: "ROC AUC",
  f1: "F1",
  accuracyThreshold: "Threshold of the best accuracy",
  f1Threshold: "Threshold of the best F1",
  teacherCosine: "Cosine to the teacher",
  baseCosine: "Cosine to the base model",
};

/** Every number of the evaluations before and after, under its name. */
export function metricsTable(before: EvaluatedEvent | undefined, after: EvaluatedEvent): Markup {
  const was: Record<string, unknown> = { ...before?.metrics };
  const numbers = Object.entries(after.metrics).filter(([key, value]) => key in was || value !== undefined);
  const rows = numbers.map(([key, value]) => {
    const [old, now] = [was[key], value as unknown];
    const change =
      typeof old === "number" && typeof now === "number" && !isCount(key) ? signed(now - old) : "";
    return html`<tr><th scope="row">${METRIC_NAMES[key] ?? words(key)}</th><td>${before && shown(key, old)}</td><td>${shown(key, now)}</td><td>${change}</td></tr>
`;
  });
  return html`<div class="card scroll"><table class="numbers">
<thead><tr><th scope="col">Metric</th><th scope="col">Before</th><th scope="col">After</th><th scope="col">Change</th></tr></thead>
<tbody>${rows}</tbody></table></div>`;
}

const isCount = (key: string): boolean => ["pairs", "positives", "triplets", "texts"].includes(key);

function shown(key: string, value: unknown): string {
  if (isCount(key)) return Number(value).toLocaleString("en-US");
  return typeof value === "number" || value === null ? metric(value) : "";
}

/** averagePrecision as "Average precision". */
function words(key: string): string {
  const text = key.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What the run's parts take at its peak. */
export function memoryTable({ plan, peak, float32Peak, storage }: MemoryEvent): Markup {
  const rows: [string, number][] = [
    ["Base model: matrices, or their packed copies where they train", plan.linear],
    ["Base model: embeddings and the rest", plan.embeddings + plan.other],
    ["What trains, with its gradient", plan.adapter],
    ["Adam's moments", plan.optimizer],
    ["Activations", plan.activations],
    ["Together, beside libtorch", peak],
  ];
  if (storage !== null) rows.push(["The same with float32 weights", float32Peak]);
  return html`<div class="card scroll"><table class="numbers"><thead><tr><th scope="col">Memory, as planned</th><th scope="col">Size</th></tr></thead>
<tbody>${rows.map(
    ([name, bytes]) => html`<tr><th scope="row">${name}</th><td>${size(bytes)}</td></tr>
`,
  )}</tbody></table></div>`;
}

/** Every option, those that are not at their default first. */
export function configTable(config: Record<string, unknown>): Markup {
  const table: Record<string, OptionDefinition> = TRAIN_OPTIONS;
  const [set, left]: [string[], string[]] = [[], []];
  for (const [name, value] of Object.entries(config)) {
    const isDefault = JSON.stringify(table[name]?.default) === JSON.stringify(value);
    (isDefault ? left : set).push(name);
  }
  const list = (names: string[]): Markup =>
    html`<dl class="options">${names.map(
      (name) => html`<div><dt>${name}</dt><dd>${optionText(config[name])}</dd></div>
`,
    )}</dl>`;
  return html`<div class="card"><h3>Chosen for this run</h3>${list(set)}<h3>Defaults</h3>${list(left)}</div>`;
}

function optionText(value: unknown): string {
  if (typeof value === "string") return value === "" ? '""' : value;
  return Array.isArray(value) ? value.join(", ") : JSON.stringify(value);
}
