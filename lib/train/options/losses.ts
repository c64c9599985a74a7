import type { ExampleKind } from "../../data/example-layout.js";
import { PeftTrainError } from "../../errors.js";
import type { Distance, LossName, LossSpec } from "../../native/types.js";
import type { Label } from "./option-value.js";
import type { ResolvedTrainOptions } from "./options.js";

/** A loss as a user knows it; defaults are those of sentence-transformers. */
interface LossDefinition {
  /** Its name in the engine. */
  engine: LossName;
  /** Kinds of example that it is trained on. */
  kinds: readonly ExampleKind[];
  distance?: Distance;
  margin?: number;
  scale?: number;
  /** What a score may be; any number unless told. */
  scoreRange?: readonly [number, number];
}

const RANKING = {
  engine: "multiple_negatives_ranking",
  kinds: ["negatives", "positives"],
  scale: 20,
} as const satisfies LossDefinition;

const LOSSES = {
  pair: { engine: "pair", kinds: ["labels"] },
  contrastive: { engine: "contrastive", kinds: ["labels"], distance: "cosine", margin: 0.5 },
  online_contrastive: { engine: "online_contrastive", kinds: ["labels"], distance: "cosine", margin: 0.5 },
  cosine_similarity: { engine: "cosine_similarity", kinds: ["scores", "labels"], scoreRange: [-1, 1] },
  cosent: { engine: "cosent", kinds: ["scores", "labels"], scale: 20 },
  angle: { engine: "angle", kinds: ["scores", "labels"], scale: 20 },
  triplet: { engine: "triplet", kinds: ["negatives"], distance: "euclidean", margin: 5 },
  multiple_negatives_ranking: RANKING,
  // Every loss over a whole batch is computed in the memory of a micro-batch here, so that the cached one is the same.
  cached_multiple_negatives_ranking: RANKING,
  mse: { engine: "mse", kinds: ["texts"] },
} as const satisfies Record<string, LossDefinition>;

type UserLoss = keyof typeof LOSSES;

export const LOSS_NAMES = Object.keys(LOSSES) as UserLoss[];
export const DISTANCES = ["cosine", "euclidean", "manhattan"] as const satisfies Distance[];

/** A loss as the engine takes it, and the data that it needs. */
export interface LossRequest {
  spec: LossSpec;
  /** What a training file is read as: the first whose columns it has. */
  kinds: readonly ExampleKind[];
  scoreRange: readonly [number, number] | undefined;
}

type LossOptions = Pick<
  ResolvedTrainOptions,
  | "loss"
  | "distance"
  | "margin"
  | "scale"
  | "matryoshkaDims"
  | "matryoshkaWeights"
  | "negativeColumn"
  | "scoreColumn"
  | "teacherEmbeddings"
>;

/** The option that names the columns of a kind; examples of such a kind are read when it is given. */
const COLUMN_OPTION = { negatives: "negativeColumn", scores: "scoreColumn" } as const;

/**
 * What the options ask for, held against each other before anything is read.
 * @throws USAGE for an option that the loss does not have, and for columns of data that it does not take.
 */
export function lossRequest(options: LossOptions, label: Label): LossRequest {
  const definition: LossDefinition = LOSSES[options.loss];
  const { engine, kinds, scoreRange, ...defaults } = definition;
  const shown = `${label("loss")}=${options.loss}`;
  for (const name of ["distance", "margin", "scale"] as const) {
    if (options[name] === null || name in defaults) continue;
    const others = LOSS_NAMES.filter((other) => name in LOSSES[other]).join(", ");
    throw new PeftTrainError("USAGE", `${label(name)}=${options[name]}: ${shown} has none; only ${others}`);
  }
  const named = (["negatives", "scores"] as const).filter((kind) => options[COLUMN_OPTION[kind]] !== null);
  const stray = named.find((kind) => !kinds.includes(kind));
  if (stray !== undefined) {
    const column = stray === "negatives" ? "negative_column" : "score_column";
    throw new PeftTrainError("USAGE", `${label(column)}: ${shown} takes ${taken(kinds, label)}`);
  }
  if (options.loss === "triplet" && options.negativeColumn?.length !== 1) {
    const found = options.negativeColumn === null ? "none" : options.negativeColumn.join(",");
    throw new PeftTrainError("USAGE", `${shown} needs one ${label("negative_column")}, got ${found}`, {
      hint: "For example: --anchor_column=anchor --positive_column=positive --negative_column=negative.",
    });
  }
  if ((options.loss === "mse") !== (options.teacherEmbeddings !== null)) {
    const message =
      options.loss === "mse"
        ? `${shown} needs ${label("teacher_embeddings")}`
        : `${label("teacher_embeddings")}: ${shown} has no use for it; only mse`;
    throw new PeftTrainError("USAGE", message, {
      hint: "A .npy file of a vector for each text, as encode writes it.",
    });
  }
  const matryoshka = matryoshkaWidths(options, label);
  return {
    scoreRange,
    kinds: named.length > 0 ? named : kinds.filter((kind) => !(kind in COLUMN_OPTION)),
    spec: {
      name: engine,
      ...defaults,
      ...(options.distance === null ? {} : { distance: options.distance }),
      ...(options.margin === null ? {} : { margin: options.margin }),
      ...(options.scale === null ? {} : { scale: options.scale }),
      ...(matryoshka === undefined ? {} : { matryoshka }),
    },
  };
}

/** Losses that the engine computes of all vectors of a step at once. */
export function isOverWholeBatch({ name }: LossSpec): boolean {
  return ["online_contrastive", "cosent", "angle", "multiple_negatives_ranking"].includes(name);
}

const IN_WORDS: Record<ExampleKind, (label: Label) => string> = {
  labels: (label) => `pairs with labels of 0 and 1 (${label("label_column")})`,
  scores: (label) => `pairs with scores (${label("score_column")})`,
  positives: () => "pairs of texts that belong together",
  texts: (label) => `single texts (${label("question1_column")})`,
  negatives: (label) => `pairs with negatives (${label("negative_column")})`,
};

function taken(kinds: readonly ExampleKind[], label: Label): string {
  return kinds.map((kind) => IN_WORDS[kind](label)).join(" or ");
}

function matryoshkaWidths(
  { matryoshkaDims: dims, matryoshkaWeights: weights }: LossOptions,
  label: Label,
): LossSpec["matryoshka"] {
  if (weights !== null && weights.length !== dims?.length) {
    const expected =
      dims === null ? `${label("matryoshka_dims")} too` : `${dims.length} of them, one a width`;
    throw new PeftTrainError(
      "USAGE",
      `${label("matryoshka_weights")}=${weights.join(",")}: expected ${expected}`,
    );
  }
  if (dims !== null && new Set(dims).size < dims.length) {
    throw new PeftTrainError("USAGE", `${label("matryoshka_dims")}=${dims.join(",")}: a width comes twice`);
  }
  return dims?.map((width, i) => ({ dims: width, weight: weights?.[i] ?? 1 }));
}
