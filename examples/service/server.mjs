import Fastify from "fastify";
import { PeftTrainError } from "peft-train";
import { requestSignal, sendRows, statusOf, vectorText } from "./http.mjs";
import { buildMetrics } from "./metrics.mjs";
import { openAiRoutes } from "./openai.mjs";
import { EMBED, SIMILARITY } from "./schemas.mjs";

/** A text of the largest request is a short essay; the largest request some thousand questions. */
const BODY_BYTES = 2 * 1024 * 1024;

/** The service without its encoder: until `serve(encoder)` is called, all that needs one answers 503. */
export function buildServer() {
  let encoder;
  let closing = false;
  const metrics = buildMetrics(() => encoder?.pending ?? { calls: 0, texts: 0 });
  const server = Fastify({
    bodyLimit: BODY_BYTES,
    forceCloseConnections: "idle",
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
  });

  server.decorate("serve", (loaded) => {
    encoder = loaded;
  });
  server.decorate("encoder", () => {
    if (encoder !== undefined && !closing) return encoder;
    throw new PeftTrainError("BUSY", closing ? "the service is stopping" : "the model is being loaded");
  });
  server.addHook("preClose", async () => {
    closing = true;
  });
  // A connection that was busy when the service began to stop would be kept open after its answer.
  server.addHook("onSend", async (_, reply) => {
    if (closing) reply.header("connection", "close");
  });
  server.addHook("onResponse", async (request, reply) => metrics.observe(request, reply));

  server.setErrorHandler((error, request, reply) => {
    const status = statusOf(error);
    if (status === 503) reply.header("retry-after", "1");
    if (status >= 500 && status !== 503) console.error(error);
    const code = error.code ?? "INTERNAL";
    const message = error.hint === undefined ? error.message : `${error.message}. ${error.hint}`;
    if (!request.url.startsWith("/v1/")) return reply.code(status).send({ error: { code, message } });
    const type = status < 500 ? "invalid_request_error" : "server_error";
    return reply.code(status).send({ error: { message, type, param: error.param ?? null, code } });
  });

  server.get("/health", async () => ({ status: "ok" }));
  server.get("/ready", async () => {
    const { name } = server.encoder().model;
    return { status: "ready", model: name, adapters: encoder.adapters.map((adapter) => adapter.name) };
  });
  server.get("/metrics", async (_, reply) => reply.type(metrics.contentType).send(await metrics.text()));

  server.post("/embed", { schema: { body: EMBED } }, async (request, reply) => {
    const { texts, adapter = false, prefix, normalize } = request.body;
    const options = { adapter, prefix, normalize, signal: requestSignal(reply) };
    const vectors = await server.encoder().encode(texts, options);
    metrics.countTexts(adapter, texts.length);
    const head = `{"adapter":${JSON.stringify(adapter)},"dimension":${encoder.dimension},"vectors":[`;
    return sendRows(reply, head, vectors, vectorText, "]}");
  });

  server.post("/similarity", { schema: { body: SIMILARITY } }, async (request, reply) => {
    const { a, b, adapter = false, prefix } = request.body;
    const options = { adapter, prefix, signal: requestSignal(reply) };
    const cosines = await server.encoder().similarity(a, b, options);
    metrics.countTexts(adapter, a.length + b.length);
    return { adapter, cosines: Array.from(cosines) };
  });

  openAiRoutes(server, metrics);
  return server;
}
