import type { OptionDefinition } from "./definition.js";

/** The files of examples and what is read from them. */
export const DATA_OPTIONS = {
  dataset_name: {
    group: "Data",
    type: "string",
    default: null,
    required: true,
    doc: "file of examples to train on: CSV, TSV or JSON Lines, gzip or not",
  },
  eval_dataset_name: {
    group: "Data",
    type: "string",
    default: null,
    doc: "file of examples to measure on: ROC AUC of labelled pairs, Spearman of scored ones, accuracy of triplets",
  },
  eval_fraction: {
    group: "Data",
    type: "number",
    default: null,
    min: 0,
    max: 1,
    above: true,
    below: true,
    doc: "in place of that file: set this part of the training examples aside, drawn by the seed",
  },
  question1_column: {
    group: "Data",
    type: "string",
    default: "question1",
    alias: "anchor_column",
    doc: "column of the first text, or anchor",
  },
  question2_column: {
    group: "Data",
    type: "string",
    default: "question2",
    alias: "positive_column",
    doc: "column of the second text, or positive",
  },
  negative_column: {
    group: "Data",
    type: "names",
    default: null,
    doc: "columns of texts that mean something else than the first, with commas between",
  },
  score_column: {
    group: "Data",
    type: "string",
    default: null,
    doc: "column of a number that says how alike the two texts are, in place of a label",
  },
  label_column: {
    group: "Data",
    type: "string",
    default: "is_duplicate",
    doc: "column of the label: 1 for the same meaning, 0 for another",
  },
  prefix: {
    group: "Data",
    type: "string",
    mayBeEmpty: true,
    default: "query: ",
    doc: "put before both texts",
  },
  question1_prefix: {
    group: "Data",
    type: "string",
    mayBeEmpty: true,
    default: null,
    doc: "put before the first text instead",
  },
  question2_prefix: {
    group: "Data",
    type: "string",
    mayBeEmpty: true,
    default: null,
    doc: "put before the second text instead",
  },
  sanity_test: {
    group: "Data",
    type: "boolean",
    default: false,
    doc: "use the first 1,024 examples of each file only",
  },
} as const satisfies Record<string, OptionDefinition>;
