import { DISTANCES, LOSS_NAMES } from "../losses.js";
import type { OptionDefinition } from "./definition.js";

/** What is minimised. */
export const LOSS_OPTIONS = {
  loss: {
    group: "Loss",
    type: "string",
    default: "pair",
    choices: LOSS_NAMES,
    doc: "what is minimised; docs/losses.md says which data each takes",
  },
  distance: {
    group: "Loss",
    type: "string",
    default: null,
    choices: DISTANCES,
    doc: "of contrastive, online_contrastive (default: cosine) and triplet (default: euclidean)",
  },
  margin: {
    group: "Loss",
    type: "number",
    default: null,
    min: 0,
    max: 1e6,
    doc: "of contrastive, online_contrastive (default: 0.5) and triplet (default: 5)",
  },
  scale: {
    group: "Loss",
    type: "number",
    default: null,
    min: 0,
    max: 1e6,
    above: true,
    doc: "what cosines are multiplied by in cosent, angle and multiple_negatives_ranking, the inverse of a temperature; default: 20",
  },
  teacher_embeddings: {
    group: "Loss",
    type: "string",
    default: null,
    doc: "of mse: .npy file of the vectors that the texts are to get, in the order of the file of examples",
  },
  matryoshka_dims: {
    group: "Loss",
    type: "numbers",
    default: null,
    min: 1,
    max: 65536,
    whole: true,
    doc: "train vectors that can be cut to these widths, with commas between: 384,256,128",
  },
  matryoshka_weights: {
    group: "Loss",
    type: "numbers",
    default: null,
    min: 0,
    max: 1e6,
    doc: "what the loss at each of these widths counts; default: 1",
  },
  anchor: {
    group: "Loss",
    type: "string",
    default: null,
    doc: "texts that stay where the base model has them, so that the others move to them: question1, question2 (and the negatives), or the name of that column",
  },
  keep_weight: {
    group: "Loss",
    type: "number",
    default: null,
    min: 0,
    max: 1e6,
    above: true,
    doc: "add this times 1 - cosine between the vectors of a sample of texts and those of the base model, which keeps them in place",
  },
  keep_dataset: {
    group: "Loss",
    type: "string",
    default: null,
    doc: "file of that sample's texts, on others of which drift is measured; default: the anchored texts of --dataset_name, or all of its texts",
  },
  keep_column: {
    group: "Loss",
    type: "string",
    default: "text",
    doc: "column of that file with the texts",
  },
} as const satisfies Record<string, OptionDefinition>;
