import { count } from "../format.js";
import { type Chart, chart } from "./chart.js";
import { type Bins, binned, type Histogrammed, middles, shares } from "./histogram.js";
import type { Distribution, RocPoints, ScoresLine } from "./lines.js";
import { axis, rangeOf } from "./scale.js";

/** An evaluation, the words for when it was, and the best threshold on its cosines, if it has one. */
export interface Scored {
  line: ScoresLine;
  /** `before`: before training. */
  when: "before" | "after";
  title: string;
  threshold: number | undefined;
}

type OfKind<K> = Extract<Distribution, { kind: K }>;

/** How the scores lie, by the kind of data; before and after have the same axes. */
export function scoreCharts(scored: readonly Scored[]): Chart[] {
  switch (scored[0]?.line.distribution.kind) {
    case "labels": {
      const all = scored.map((one) => ({ ...one, shown: one.line.distribution as OfKind<"labels"> }));
      return [
        rocChart(all.map((one) => ({ ...one, roc: one.shown.roc }))),
        ...histograms(
          all.map((one) => ({
            ...one,
            classes: [
              { name: "label 0", style: "negative", histogram: one.shown.negative },
              { name: "label 1", style: "positive", histogram: one.shown.positive },
            ],
            marks: one.threshold === undefined ? [] : [{ x: one.threshold, name: "best threshold" }],
          })),
          { title: "Cosines of pairs", x: "Cosine", unit: "pairs" },
        ),
      ];
    }
    case "scores":
      return [
        groupsChart(scored.map((one) => ({ ...one, shown: one.line.distribution as OfKind<"scores"> }))),
      ];
    case "negatives":
      return histograms(
        scored.map((one) => {
          const { margins } = one.line.distribution as OfKind<"negatives">;
          const classes = [{ name: "triplets", style: "positive", histogram: margins }];
          return { ...one, classes, marks: [{ x: 0, name: "right from here" }] };
        }),
        {
          title: "Margins of triplets",
          x: "Cosine to the positive less cosine to the negative",
          unit: "triplets",
        },
      );
    case "texts":
      return histograms(
        scored.map((one) => {
          const { cosines } = one.line.distribution as OfKind<"texts">;
          return { ...one, classes: [{ name: "texts", style: "positive", histogram: cosines }], marks: [] };
        }),
        { title: "Cosine to the teacher", x: "Cosine", unit: "texts" },
      );
    default:
      return [];
  }
}

function rocChart(scored: readonly (Scored & { roc: RocPoints })[]): Chart {
  const fromZeroToOne = axis([0, 1]);
  return chart({
    id: "roc",
    title: "ROC curve",
    description: "True positive rate against false positive rate over all thresholds on the cosine.",
    x: { name: "False positive rate", axis: fromZeroToOne },
    y: fromZeroToOne,
    series: scored.map(({ roc, when, title }) => ({
      name: title,
      style: when,
      x: roc.falsePositiveRate,
      y: roc.truePositiveRate,
      notes: roc.threshold.map((cosine) => (cosine === null ? "none" : `cosine ${cosine.toFixed(3)}`)),
    })),
    diagonal: true,
    note: "True positive rate; the dotted line is guessing.",
  });
}

function histograms(
  scored: readonly (Scored & { classes: readonly Histogrammed[]; marks: { x: number; name: string }[] })[],
  { title, x, unit }: { title: string; x: string; unit: string },
): Chart[] {
  const bins: Bins = binned(scored.flatMap(({ classes, marks }) => [...classes, ...marks]));
  const across = middles(bins);
  const drawn = scored.map((one) => ({
    ...one,
    shares: one.classes.map(({ histogram }) => shares(histogram, bins)),
  }));
  const highest = rangeOf([0, ...drawn.flatMap((one) => one.shares.flatMap(({ percent }) => percent))]);
  return drawn.map(({ classes, marks, when, title: moment, ...one }) =>
    chart({
      id: `scores-${when}`,
      title: `${title}, ${moment}`,
      description: classes
        .map(
          ({ name }, i) =>
            `${name}: ${count(one.shares[i]?.total ?? 0)} ${unit}, most near ${one.shares[i]?.peak.toFixed(2)}`,
        )
        .join("; "),
      x: { name: x, axis: axis([bins.low, bins.high], { most: 8 }) },
      y: axis(highest, { widen: true }),
      series: classes.map(({ name, style }, i) => ({
        name: classes.length === 1 ? name : `${name} (${count(one.shares[i]?.total ?? 0)})`,
        style,
        x: across,
        y: one.shares[i]?.percent ?? [],
        notes: (one.shares[i]?.counts ?? []).map((found) => `% (${count(found)} ${unit})`),
        shape: "bars" as const,
      })),
      marks,
      note: classes.length === 1 ? `Percent of the ${unit}.` : `Percent of the ${unit} of each label.`,
    }),
  );
}

function groupsChart(scored: readonly (Scored & { shown: OfKind<"scores"> })[]): Chart {
  const groups = scored.flatMap(({ shown }) => shown.groups);
  return chart({
    id: "by-score",
    title: "Cosine by score",
    description: "The median cosine of pairs of like score, and the middle half of them.",
    x: { name: "Score in the file", axis: axis(rangeOf(groups.map(({ score }) => score))) },
    y: axis(rangeOf(groups.flatMap(({ quartiles }) => quartiles)), { widen: true }),
    series: scored.flatMap(({ shown, when, title }) => {
      const quartile = (i: 0 | 1 | 2): number[] => shown.groups.map(({ quartiles }) => quartiles[i]);
      const x = shown.groups.map(({ score }) => score);
      return [
        { name: title, style: when, x, y: quartile(0), shape: { upTo: quartile(2) }, silent: true as const },
        {
          name: title,
          style: when,
          x,
          y: quartile(1),
          notes: shown.groups.map(({ pairs }) => `${count(pairs)} pairs`),
          shape: "dots" as const,
        },
      ];
    }),
    note: "Line: median. Band: the middle half of the pairs. What rises evenly is what Spearman's correlation asks for.",
  });
}
