/** ok; note: works, and worth knowing; problem: something does not work; skipped: could not be tried. */
export type Status = "ok" | "note" | "problem" | "skipped";

/** One row of the table. */
export interface Finding {
  /** Stable, for programs: "libtorch", "train.cuda:0". */
  check: string;
  status: Status;
  /** What was found, on one line. */
  found: string;
  /** The command, or the sentence, that mends it. Always there for a problem. */
  next?: string;
  /** The same for programs. */
  details?: Record<string, unknown>;
}

/** A finding of something that did not work: what an error says, and what to do next. */
export function problem(check: string, found: string, next: string): Finding {
  return { check, status: "problem", found, next };
}
