import { type ErrorCode, PeftTrainError } from "../errors.js";

/** Exit codes: 2 for a command line that cannot be run as it stands, 130 for Ctrl-C, 1 for everything else. */
export function exitCode(error: unknown): number {
  if (!(error instanceof PeftTrainError)) return 1;
  const codes: Partial<Record<ErrorCode, number>> = { USAGE: 2, NOT_YET_AVAILABLE: 2, ABORTED: 130 };
  return codes[error.code] ?? 1;
}

/** One line `error: ...` and one `hint: ...` on stderr; with `json` the same as an object on stdout too. */
export function printError(error: unknown, json: boolean): void {
  const known = error instanceof PeftTrainError;
  const message = oneLine(error instanceof Error ? error.message : String(error));
  const hint = known ? error.hint : undefined;
  process.stderr.write(`error: ${known ? "" : "internal: "}${message}\n`);
  if (hint !== undefined) process.stderr.write(`hint: ${oneLine(hint)}\n`);
  if (!known || process.env.PEFT_TRAIN_DEBUG) process.stderr.write(`${details(error)}\n`);
  if (json) {
    const code = known ? error.code : "INTERNAL";
    process.stdout.write(`${JSON.stringify({ event: "error", code, message, ...(hint ? { hint } : {}) })}\n`);
  }
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s*\n\s*/g, " ");
}

function details(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by: ${details(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}
