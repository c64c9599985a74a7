import { METRIC_NAMES } from "../../evaluation/best-metric.js";
import { MOST, type OptionDefinition } from "./definition.js";

/** When a run measures, and what follows from it. */
export const EVALUATION_OPTIONS = {
  eval_steps: {
    group: "Evaluation",
    type: "checkpoints",
    default: null,
    doc: "measure every N optimiser steps and after the last, or after every epoch; default: epoch",
  },
  metric_for_best_model: {
    group: "Evaluation",
    type: "string",
    default: null,
    pattern: new RegExp(`^(eval_)?(${METRIC_NAMES.join("|")})$`),
    expected: `one of ${METRIC_NAMES.join(", ")}, with or without eval_ before it`,
    doc: "what tells the best evaluation; default: roc_auc of labelled pairs, spearman of scored ones, triplet_accuracy, teacher_cosine",
  },
  greater_is_better: {
    group: "Evaluation",
    type: "boolean",
    default: null,
    doc: "whether a higher value of it is better; default: true, but for loss",
  },
  load_best_model_at_end: {
    group: "Evaluation",
    type: "boolean",
    default: false,
    doc: "keep the adapter of the best evaluation in the output folder, not that of the last step",
  },
  early_stopping_patience: {
    group: "Evaluation",
    type: "integer",
    default: null,
    min: 1,
    max: MOST,
    doc: "end after so many evaluations in a row that are no better than the best before them",
  },
  early_stopping_threshold: {
    group: "Evaluation",
    type: "number",
    default: null,
    min: 0,
    max: 1e9,
    doc: "a gain up to this counts as none for early_stopping_patience; default: 0",
  },
} as const satisfies Record<string, OptionDefinition>;
