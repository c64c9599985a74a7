import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { count } from "../format.js";
import { VERSION } from "../version.js";
import { html, Markup, scriptData } from "./html.js";
import { mistakesSection } from "./mistakes.js";
import { type RunLog, scoresBeforeAndAfter } from "./run-log.js";
import { type Scored, scoreCharts } from "./score-charts.js";
import { configTable, memoryTable, metricsTable } from "./tables.js";
import { tiles } from "./tiles.js";
import { trainingCharts } from "./training-charts.js";

/** The report of a run as one HTML file that needs nothing else: no network, and no script to be read. */
export function renderReport(log: RunLog): string {
  const { started, evaluations, finished } = log;
  const before = evaluations.find(({ step }) => step === 0);
  const kept = evaluations.findLast(({ step }) => step === finished?.savedStep) ?? evaluations.at(-1);
  const after = kept === before ? undefined : kept;
  const scored = scoredEvaluations(log);
  const [training, scores] = [trainingCharts(log), scoreCharts(scored)];
  const name = path.isAbsolute(started.model) ? path.basename(started.model) : started.model;
  const mistakes = mistakesSection(log.report, scored[0]?.line.distribution.kind ?? "");
  const body = html`<header><h1>${name}</h1>
<p>${subtitle(log)}</p>${state(log)}</header>
<main>
${tiles(log, { before, after })}
<section><h2>Training</h2><div class="charts">${training.map(({ markup }) => markup)}</div>
${training.length === 0 && html`<p>No step was logged.</p>`}</section>
<section><h2>Evaluation</h2>${evaluation(log, scores.length)}<div class="charts">${scores.map(({ markup }) => markup)}
${kept !== undefined && metricsTable(after && before, kept)}</div></section>
${mistakes ?? ""}
${log.memory !== undefined && html`<section><h2>Memory</h2>${memoryTable(log.memory)}</section>`}
<section><h2>Configuration</h2>${configTable(log.config)}</section>
</main>
<footer><p>Written by peft-train ${VERSION}.</p></footer>`;
  const charts = [...training, ...scores];
  return page(`${name}: training report`, body, Object.fromEntries(charts.map(({ id, data }) => [id, data])));
}

function scoredEvaluations(log: RunLog): Scored[] {
  const { before, after } = scoresBeforeAndAfter(log);
  const thresholdAt = (step: number): number | undefined => {
    const metrics = log.evaluations.findLast((one) => one.step === step)?.metrics;
    return metrics !== undefined && "accuracyThreshold" in metrics ? metrics.accuracyThreshold : undefined;
  };
  return [
    ...(before === undefined ? [] : [{ line: before, when: "before" as const, title: "before training" }]),
    ...(after === undefined
      ? []
      : [{ line: after, when: "after" as const, title: `after step ${count(after.step)}` }]),
  ].map((one) => ({ ...one, threshold: thresholdAt(one.line.step) }));
}

function subtitle({ started, config }: RunLog): Markup {
  const evaluated = started.evalPairs > 0 ? `, measured on ${count(started.evalPairs)}` : "";
  const data = typeof config.dataset_name === "string" ? ` of ${path.basename(config.dataset_name)}` : "";
  const trained =
    started.adaptedModules === 0 ? "All parameters" : `LoRA on ${count(started.adaptedModules)} modules`;
  return html`${trained}, ${count(started.trainPairs)} examples${data}${evaluated}.`;
}

/** Where a run is not simply finished. */
function state({ finished, resumedAt, started }: RunLog): Markup {
  const resumed =
    resumedAt.length > 0 && `It went on from a checkpoint at step ${resumedAt.map(count).join(", ")}.`;
  const ended =
    finished === undefined
      ? "The run goes on, or ended without a word: this is as far as its log tells."
      : finished.stopped && `Stopped after step ${count(finished.steps)} of ${count(started.totalSteps)}.`;
  return html`${ended && html`<p class="state">${ended}</p>`}${resumed && html`<p class="state">${resumed}</p>`}`;
}

function evaluation({ evaluations, scores }: RunLog, charts: number): Markup {
  if (evaluations.length === 0) {
    return html`<p>There was nothing to measure on: <code>--eval_dataset_name</code> or <code>--eval_fraction</code> gives it.</p>`;
  }
  const missing = scores.length === 0 && charts === 0;
  return html`${missing && html`<p>With <code>--no-report</code> a run keeps no scores: their charts and the mistakes are missing.</p>`}`;
}

/** From lib and from dist alike. */
const ASSETS = new URL("../../assets/", import.meta.url);

function page(title: string, body: Markup, charts: unknown): string {
  const [style, script] = ["report.css", "report.js"].map((name) =>
    readFileSync(new URL(name, ASSETS), "utf8"),
  ) as [string, string];
  const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
  // Nothing is fetched, and nothing runs but our own script, whatever a text should hold.
  const policy = `default-src 'none'; style-src ${hash(style)}; script-src ${hash(script)}; base-uri 'none'; form-action 'none'`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${new Markup(style)}</style>
</head>
<body>
${body}
<script type="application/json" id="charts">${scriptData(charts)}</script>
<script>${new Markup(script)}</script>
</body>
</html>
`.text;
}
