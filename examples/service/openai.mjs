import { requestSignal, sendRows, vectorText } from "./http.mjs";
import { OPENAI_EMBEDDINGS } from "./schemas.mjs";

/** POST /v1/embeddings and GET /v1/models as OpenAI's clients expect them. A model is an adapter's name, or `base`. */
export function openAiRoutes(server, metrics) {
  server.get("/v1/models", async () => {
    const names = ["base", ...server.encoder().adapters.map(({ name }) => name)];
    return {
      object: "list",
      data: names.map((id) => ({ id, object: "model", created: 0, owned_by: "peft-train" })),
    };
  });

  server.post("/v1/embeddings", { schema: { body: OPENAI_EMBEDDINGS } }, async (request, reply) => {
    const { model, input, encoding_format: format = "float", dimensions } = request.body;
    const encoder = server.encoder();
    requireModel(encoder, model);
    requireDimensions(encoder, dimensions);
    const texts = typeof input === "string" ? [input] : input;
    const adapter = model === "base" ? false : model;
    const vectors = await encoder.encode(texts, { adapter, signal: requestSignal(reply) });
    const counts = await encoder.countTokens(texts, { adapter });
    const tokens = counts.reduce((sum, count) => sum + count, 0);
    metrics.countTexts(adapter, texts.length);
    const embedding = format === "base64" ? base64 : vectorText;
    const item = (vector, i) => `{"object":"embedding","index":${i},"embedding":${embedding(vector)}}`;
    const usage = JSON.stringify({ prompt_tokens: tokens, total_tokens: tokens });
    const tail = `],"model":${JSON.stringify(model)},"usage":${usage}}`;
    return sendRows(reply, `{"object":"list","data":[`, vectors, item, tail);
  });
}

/** float32, little-endian, as OpenAI's clients unpack it. */
function base64(vector) {
  return `"${Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64")}"`;
}

function requireModel(encoder, model) {
  const names = encoder.adapters.map(({ name }) => name);
  if (model === "base" || names.includes(model)) return;
  throw refused(
    404,
    "model_not_found",
    "model",
    `no model ${JSON.stringify(model)}; there are ${["base", ...names].join(", ")}`,
  );
}

function requireDimensions(encoder, dimensions) {
  if (dimensions === undefined || dimensions === encoder.dimension) return;
  const message = `dimensions=${dimensions}: this model has ${encoder.dimension}`;
  throw refused(400, "invalid_dimensions", "dimensions", message);
}

function refused(statusCode, code, param, message) {
  return Object.assign(new Error(message), { statusCode, code, param });
}
