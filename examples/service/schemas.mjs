// What requests must look like; Fastify refuses all else with 400 and says where it differs.

const TEXTS = { type: "array", minItems: 1, maxItems: 2048, items: { type: "string", maxLength: 100_000 } };
/** The name of an adapter; false, as without it, is the base model. */
const ADAPTER = { anyOf: [{ type: "string", minLength: 1 }, { const: false }] };
const PREFIX = { type: "string", maxLength: 1000 };

export const EMBED = {
  type: "object",
  required: ["texts"],
  additionalProperties: false,
  properties: { texts: TEXTS, adapter: ADAPTER, prefix: PREFIX, normalize: { type: "boolean" } },
};

export const SIMILARITY = {
  type: "object",
  required: ["a", "b"],
  additionalProperties: false,
  properties: { a: TEXTS, b: TEXTS, adapter: ADAPTER, prefix: PREFIX },
};

/** POST /v1/embeddings of OpenAI; token ids as input are not taken, since they would be another tokenizer's. */
export const OPENAI_EMBEDDINGS = {
  type: "object",
  required: ["model", "input"],
  properties: {
    model: { type: "string", minLength: 1 },
    input: { anyOf: [{ type: "string", minLength: 1, maxLength: 100_000 }, TEXTS] },
    encoding_format: { enum: ["float", "base64"] },
    dimensions: { type: "integer" },
    user: { type: "string" },
  },
};
