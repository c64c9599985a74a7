import { count, metric, rate } from "../format.js";
import type { EvalMetrics } from "../train/evaluation/evaluate.js";
import { headline } from "../train/evaluation/headline.js";
import { type Chart, chart, type Series } from "./chart.js";
import { type Curve, runCurve, smoothed } from "./curve.js";
import { html } from "./html.js";
import type { RunLog } from "./run-log.js";
import { axis, rangeOf } from "./scale.js";

/** How training went: loss, learning rate, what it is judged by, speed. */
export function trainingCharts(log: RunLog): Chart[] {
  const curve = runCurve(log);
  return [
    ...(curve.steps.length === 0 ? [] : [lossChart(curve)]),
    ...headlineChart(log),
    ...driftChart(log),
    ...(curve.steps.length === 0 ? [] : [learningRateChart(curve)]),
    ...(curve.pairsPerSecond.length === 0 ? [] : [throughputChart(curve)]),
  ];
}

const SMOOTHING = html`<fieldset class="controls"><legend>Smoothing</legend>
<label><input type="radio" name="smoothing" id="smooth-none"> none</label>
<label><input type="radio" name="smoothing" id="smooth-light" checked> light</label>
<label><input type="radio" name="smoothing" id="smooth-strong"> strong</label>
</fieldset>
`;

function lossChart({ steps, losses, stepsPerPoint }: Curve): Chart {
  const span = (part: number, least: number): number => Math.max(least, Math.round(part * losses.length));
  const smooth = (name: string, points: number): Series => ({
    name: `smoothed over some ${count(points * stepsPerPoint)} steps`,
    style: `after smooth-${name}`,
    x: steps,
    y: smoothed(losses, points),
  });
  const [first = 0, last = 0] = [losses[0], smoothed(losses, span(0.1, 10)).at(-1)];
  return chart({
    id: "loss",
    title: "Training loss",
    description: `From ${metric(first)} at the beginning to ${metric(last)}, smoothed, at the end.`,
    x: { name: "Step", axis: stepAxis(steps) },
    y: axis(rangeOf([...losses, 0]), { widen: true }),
    series: [
      { name: "loss", style: "raw", x: steps, y: losses },
      smooth("light", span(0.03, 4)),
      smooth("strong", span(0.1, 10)),
    ],
    note: stepsPerPoint > 1 ? `Each point is the mean of ${count(stepsPerPoint)} steps.` : undefined,
    controls: SMOOTHING,
  });
}

function learningRateChart({ steps, learningRates }: Curve): Chart {
  return chart({
    id: "learning-rate",
    title: "Learning rate",
    description: `At most ${rate(Math.max(...learningRates))}, ${rate(learningRates.at(-1) as number)} at the last step.`,
    x: { name: "Step", axis: stepAxis(steps) },
    y: axis(rangeOf([...learningRates, 0]), { widen: true }),
    series: [{ name: "learning rate", style: "after", x: steps, y: learningRates }],
  });
}

function throughputChart({ steps, pairsPerSecond }: Curve): Chart {
  return chart({
    id: "throughput",
    title: "Examples a second",
    description: `${count(Math.round(pairsPerSecond.at(-1) as number))} at the end.`,
    x: { name: "Step", axis: stepAxis(steps) },
    y: axis(rangeOf([...pairsPerSecond, 0]), { widen: true }),
    series: [{ name: "examples a second", style: "after", x: steps, y: pairsPerSecond }],
    note: "Of the optimiser steps alone: evaluation and saving are left out.",
  });
}

/** One number of each evaluation, by epoch. */
function evaluationChart(
  { evaluations, started }: RunLog,
  of: { id: string; name: string; note?: string; value: (metrics: EvalMetrics) => number | null | undefined },
): Chart[] {
  const measured = evaluations.flatMap(({ step, metrics }) => {
    const value = of.value(metrics) ?? null;
    return value === null ? [] : [{ epochs: step / started.stepsPerEpoch, step, value }];
  });
  if (measured.length === 0) return [];
  const values = measured.map(({ value }) => value);
  const epochs = measured.map((one) => one.epochs);
  const drawn = chart({
    id: of.id,
    title: `${of.name} by epoch`,
    description: measured.map(({ step, value }) => `${metric(value)} after step ${count(step)}`).join(", "),
    x: { name: "Epoch", axis: axis(rangeOf([0, ...epochs]), { whole: Math.max(0, ...epochs) >= 2 }) },
    y: axis(rangeOf(values), { widen: true }),
    series: [
      {
        name: of.name,
        style: "after",
        x: epochs,
        y: values,
        notes: measured.map(({ step }) => (step === 0 ? "before training" : `step ${count(step)}`)),
        shape: "dots",
      },
    ],
    note: of.note,
  });
  return [drawn];
}

/** What the run is judged by. */
function headlineChart(log: RunLog): Chart[] {
  const [first] = log.evaluations;
  if (first === undefined) return [];
  const { name } = headline(first.metrics);
  return evaluationChart(log, { id: "headline", name, value: (metrics) => headline(metrics).value });
}

/** How far the run has moved texts that it was not trained on. */
function driftChart(log: RunLog): Chart[] {
  return evaluationChart(log, {
    id: "drift",
    name: "Cosine to the base model",
    note: "Of texts that are not trained on: 1 where nothing has drifted.",
    value: ({ baseCosine }) => baseCosine,
  });
}

function stepAxis(steps: readonly number[]) {
  return axis(rangeOf([0, ...steps]), { whole: true });
}
