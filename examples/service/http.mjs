import { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";

/** Rows that are turned into text between two looks at the event loop. */
const ROWS_A_TURN = 16;

/** Aborted when the client goes away before it has its answer. */
export function requestSignal(reply) {
  const controller = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) controller.abort();
  });
  return controller.signal;
}

/** Sends JSON whose rows are made a few at a time, so that a large answer holds nobody up. */
export function sendRows(reply, head, rows, rowText, tail) {
  async function* text() {
    yield head;
    for (let i = 0; i < rows.length; i += ROWS_A_TURN) {
      if (i > 0) await setImmediate();
      yield (i > 0 ? "," : "") +
        rows
          .slice(i, i + ROWS_A_TURN)
          .map((row, j) => rowText(row, i + j))
          .join(",");
    }
    yield tail;
  }
  return reply.type("application/json; charset=utf-8").send(Readable.from(text()));
}

/** Nine digits are enough to give every float32 back. */
export function vectorText(vector) {
  return `[${Array.from(vector, (value) => Number(value.toPrecision(9))).join(",")}]`;
}

/** HTTP status of an error of peft-train or of Fastify. */
export function statusOf(error) {
  switch (error.code) {
    case "BUSY":
    case "ENCODER_CLOSED":
    case "OUT_OF_MEMORY":
      return 503;
    case "USAGE":
      return 400;
    case "ABORTED":
      return 499; // nobody is there to read it; as nginx logs it
    default:
      return error.statusCode ?? 500;
  }
}
