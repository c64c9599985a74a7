import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** Prometheus metrics of the service and of its process. `pending()`: calls and texts that the encoder has not finished. */
export function buildMetrics(pending) {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const seconds = new Histogram({
    name: "http_request_duration_seconds",
    help: "Time from the request's arrival to the end of its answer",
    labelNames: ["method", "route", "status"],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const texts = new Counter({
    name: "embedded_texts_total",
    help: "Texts that were embedded, by adapter",
    labelNames: ["adapter"],
    registers,
  });
  for (const what of ["calls", "texts"]) {
    new Gauge({
      name: `encoder_pending_${what}`,
      help: `${what === "calls" ? "Calls" : "Texts"} that wait for the encoder or run`,
      registers,
      collect() {
        this.set(pending()[what]);
      },
    });
  }
  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    countTexts: (adapter, count) => texts.inc({ adapter: adapter || "none" }, count),
    observe(request, reply) {
      // The route, never the address: each label value is kept for good.
      const route = request.routeOptions.url ?? "unknown";
      seconds.observe({ method: request.method, route, status: reply.statusCode }, reply.elapsedTime / 1000);
    },
  };
}
