import type { ExampleKind } from "../data/example-layout.js";
import { type ExampleDataset, positivePairs } from "../data/examples.js";
import { PeftTrainError } from "../errors.js";
import { requireBothClasses } from "./evaluation/evaluate.js";
import type { LossRequest } from "./options/losses.js";
import type { ResolvedTrainOptions } from "./options/options.js";

/** What a training file may be. One of labelled pairs has pairs of texts that belong together: those with label 1. */
export function trainingKinds({ kinds }: LossRequest): ExampleKind[] {
  return kinds.flatMap((kind) => (kind === "positives" ? ["labels", kind] : kind));
}

/** What an evaluation file may be: the first whose columns were named and are there. */
export function evaluationKinds({ negativeColumn, scoreColumn }: ResolvedTrainOptions): ExampleKind[] {
  return [
    ...(negativeColumn === null ? [] : (["negatives"] as const)),
    ...(scoreColumn === null ? [] : (["scores"] as const)),
    "labels",
  ];
}

/**
 * The examples of a training file as the loss takes them.
 * @param part Which of them they are, for messages.
 * @throws DATA_LABEL where it would learn nothing from them.
 */
export function examplesForLoss(
  dataset: ExampleDataset,
  { loss, options }: { loss: LossRequest; options: ResolvedTrainOptions },
  part = "",
): { dataset: ExampleDataset; warnings: string[] } {
  const { labelColumn, scoreColumn } = options;
  const { kind, count, positives, labels } = dataset;
  const where = dataset.path + part;
  if (kind === "labels" && loss.kinds.includes("positives")) {
    const left = count - positives;
    const trains = `--loss=${options.loss} trains on those with label 1`;
    if (positives === 0) {
      throw new PeftTrainError(
        "DATA_LABEL",
        `${where}: all ${count} labels in column ${labelColumn} are 0; ${trains}`,
      );
    }
    const message = `${left} of the ${count} pairs of ${where} have label 0 and are left out: ${trains}`;
    return { dataset: positivePairs(dataset), warnings: left > 0 ? [message] : [] };
  }
  if (kind === "labels") requireBothClasses({ ...dataset, path: where }, labelColumn);
  const ordersPairs = loss.spec.name === "cosent" || loss.spec.name === "angle";
  if (kind === "scores" && ordersPairs && labels.every((score) => score === labels[0])) {
    throw new PeftTrainError(
      "DATA_LABEL",
      `${where}: all ${count} scores in column ${scoreColumn} are ${labels[0]}; expected some higher than others`,
    );
  }
  return { dataset, warnings: [] };
}
