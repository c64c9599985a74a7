import { describe, expect, it } from "vitest";
import { parseModelConfig } from "../../../lib/model/config.js";
import { TINY_CONFIG } from "../../support/tiny-model.js";

const parse = (changes: Record<string, unknown>) =>
  parseModelConfig({ ...TINY_CONFIG, ...changes }, "m/config.json");

describe("config.json", () => {
  it("gives the shape", () => {
    expect(parse({})).toEqual({
      vocabSize: 205,
      hiddenSize: 32,
      numLayers: 2,
      numHeads: 2,
      intermediateSize: 64,
      maxPositions: 64,
      typeVocabSize: 2,
      layerNormEps: 1e-12,
      hiddenDropout: 0.1,
      attentionDropout: 0.1,
    });
  });

  it("takes BertConfig's defaults for absent keys", () => {
    expect(parseModelConfig({ model_type: "bert" }, "config.json")).toMatchObject({
      vocabSize: 30522,
      hiddenSize: 768,
      numLayers: 12,
      numHeads: 12,
      intermediateSize: 3072,
      maxPositions: 512,
      hiddenDropout: 0.1,
    });
  });

  for (const [changes, named] of [
    [{ model_type: "xlm-roberta" }, "xlm-roberta"],
    [{ model_type: undefined }, "no model_type"],
    [{ hidden_act: "gelu_new" }, "hidden_act"],
    [{ position_embedding_type: "relative_key" }, "position_embedding_type"],
    [{ is_decoder: true }, "is_decoder"],
    [{ add_cross_attention: true }, "add_cross_attention"],
  ] as const) {
    it(`is refused as unsupported with ${JSON.stringify(changes)}`, () => {
      expect(() => parse(changes)).toThrow(
        expect.objectContaining({ code: "MODEL_UNSUPPORTED", message: expect.stringContaining(named) }),
      );
    });
  }

  it("says which models are supported", () => {
    expect(() => parse({ model_type: "gpt2" })).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(/e5-small-v2.*all-MiniLM-L6-v2/) }),
    );
  });

  for (const [changes, named] of [
    [{ hidden_size: 30, num_attention_heads: 4 }, "not a multiple"],
    [{ hidden_size: "32" }, "hidden_size"],
    [{ num_hidden_layers: 0 }, "num_hidden_layers"],
    [{ vocab_size: 1e12 }, "vocab_size"],
    [{ layer_norm_eps: -1 }, "layer_norm_eps"],
    [{ hidden_dropout_prob: 1 }, "hidden_dropout_prob"],
    [{ attention_probs_dropout_prob: Number.NaN }, "attention_probs_dropout_prob"],
  ] as const) {
    it(`is refused as corrupt with ${JSON.stringify(changes)}`, () => {
      expect(() => parse(changes)).toThrow(
        expect.objectContaining({ code: "MODEL_CORRUPT", message: expect.stringContaining(named) }),
      );
    });
  }
});
