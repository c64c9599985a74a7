import { describe, expect, it } from "vitest";
import { LOSS_NAMES, lossRequest } from "../../../lib/train/options/losses.js";
import { flagLabel } from "../../../lib/train/options/option-value.js";
import { resolveOptions } from "../../../lib/train/options/options.js";

const REQUIRED = { model_name_or_path: "m", dataset_name: "d.csv", output_dir: "out" };

function request(given: Record<string, unknown>) {
  return lossRequest(resolveOptions({ ...REQUIRED, ...given }), flagLabel);
}

describe("a loss", () => {
  it("is the article's unless told", () => {
    expect(request({})).toEqual({ spec: { name: "pair" }, kinds: ["labels"], scoreRange: undefined });
  });

  it("has the defaults of sentence-transformers", () => {
    expect(request({ loss: "contrastive" }).spec).toEqual({
      name: "contrastive",
      distance: "cosine",
      margin: 0.5,
    });
    expect(request({ loss: "triplet", negative_column: "n" }).spec).toEqual({
      name: "triplet",
      distance: "euclidean",
      margin: 5,
    });
    for (const loss of ["multiple_negatives_ranking", "cached_multiple_negatives_ranking"]) {
      expect(request({ loss }).spec).toEqual({ name: "multiple_negatives_ranking", scale: 20 });
    }
  });

  it("takes its parameters and widths", () => {
    const given = {
      loss: "online_contrastive",
      distance: "manhattan",
      margin: "0",
      matryoshka_dims: "32, 16",
    };
    expect(request(given).spec).toEqual({
      name: "online_contrastive",
      distance: "manhattan",
      margin: 0,
      matryoshka: [
        { dims: 32, weight: 1 },
        { dims: 16, weight: 1 },
      ],
    });
    const weighted = { loss: "angle", scale: 5, matryoshka_dims: [32, 16], matryoshka_weights: "1,0.5" };
    expect(request(weighted).spec).toEqual({
      name: "angle",
      scale: 5,
      matryoshka: [
        { dims: 32, weight: 1 },
        { dims: 16, weight: 0.5 },
      ],
    });
  });

  it("names the data that it is trained on", () => {
    expect(request({ loss: "cosent" }).kinds).toEqual(["labels"]);
    expect(request({ loss: "cosent", score_column: "s" }).kinds).toEqual(["scores"]);
    expect(request({ loss: "cosine_similarity", score_column: "s" }).scoreRange).toEqual([-1, 1]);
    expect(request({ loss: "mse", teacher_embeddings: "v.npy" }).kinds).toEqual(["texts"]);
    const ranking = "multiple_negatives_ranking";
    expect(request({ loss: ranking }).kinds).toEqual(["positives"]);
    expect(request({ loss: ranking, negative_column: "n1,n2" }).kinds).toEqual(["negatives"]);
  });
});

describe("what is refused", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ loss: "hinge" }, `--loss=hinge: expected one of ${LOSS_NAMES.join(", ")}`],
    [{ margin: 0.5 }, "--margin=0.5: --loss=pair has none; only contrastive, online_contrastive, triplet"],
    [{ loss: "cosent", distance: "cosine" }, "--distance=cosine: --loss=cosent has none"],
    [
      { loss: "contrastive", scale: 3 },
      "--scale=3: --loss=contrastive has none; only cosent, angle, multiple",
    ],
    [{ loss: "cosent", scale: 0 }, "--scale=0: expected a number above 0"],
    [{ loss: "triplet", distance: "dot" }, "--distance=dot: expected one of cosine, euclidean, manhattan"],
    [
      { score_column: "s" },
      "--score_column: --loss=pair takes pairs with labels of 0 and 1 (--label_column)",
    ],
    [
      { loss: "multiple_negatives_ranking", score_column: "s" },
      "--score_column: --loss=multiple_negatives_ranking takes pairs with negatives",
    ],
    [{ loss: "angle", negative_column: "n" }, "--negative_column: --loss=angle takes pairs with scores"],
    [{ loss: "triplet" }, "--loss=triplet needs one --negative_column, got none"],
    [{ loss: "triplet", negative_column: "a,b" }, "needs one --negative_column, got a,b"],
    [{ loss: "mse" }, "--loss=mse needs --teacher_embeddings"],
    [{ teacher_embeddings: "v.npy" }, "--teacher_embeddings: --loss=pair has no use for it; only mse"],
    [{ negative_column: "a,,b" }, "--negative_column=a,,b: expected names with commas between"],
    [{ matryoshka_dims: "64,0" }, "--matryoshka_dims=64,0: expected whole numbers from 1 to 65536"],
    [{ matryoshka_dims: "64,64" }, "--matryoshka_dims=64,64: a width comes twice"],
    [{ matryoshka_dims: "64,32", matryoshka_weights: "1" }, "--matryoshka_weights=1: expected 2 of them"],
    [{ matryoshka_weights: "1" }, "--matryoshka_weights=1: expected --matryoshka_dims too"],
  ];
  for (const [given, message] of cases) {
    it(JSON.stringify(given), () => {
      expect(() => request(given)).toThrow(expect.objectContaining({ code: "USAGE" }));
      expect(() => request(given)).toThrow(message);
    });
  }
});
