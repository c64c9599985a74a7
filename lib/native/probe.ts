import { fork } from "node:child_process";
import { createInterface } from "node:readline";
import { type ErrorCode, PeftTrainError } from "../errors.js";

export interface ProbeFailure {
  /** Undefined where the process crashed or gave no answer. */
  code?: ErrorCode;
  message: string;
  hint?: string;
}

export type ProbeOutcome<T> =
  | { value: T; failure?: undefined }
  | { value?: undefined; failure: ProbeFailure };

export interface ProbeOptions {
  env: NodeJS.ProcessEnv;
  timeoutMs: number;
}

const KEPT_LINES = 20;

/**
 * Runs a module in a process of its own, which answers by `answerProbe`. Never rejects: a crash and a hang are outcomes.
 *
 * @param main path of the compiled module.
 */
export async function runProbe<T>(
  main: string,
  args: readonly string[],
  { env, timeoutMs }: ProbeOptions,
): Promise<ProbeOutcome<T>> {
  const child = fork(main, args, { env, stdio: ["ignore", "ignore", "pipe", "ipc"], execArgv: [] });
  const lines: string[] = [];
  if (child.stderr !== null) {
    createInterface({ input: child.stderr }).on("line", (line) => {
      if (line.trim() !== "") lines.push(line.trim());
      if (lines.length > KEPT_LINES) lines.shift();
    });
  }
  let answer: ProbeOutcome<T> | undefined;
  child.on("message", (message) => {
    answer = message as ProbeOutcome<T>;
  });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, timeoutMs);
  const ended = await new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  clearTimeout(timer);
  if (answer !== undefined) return answer;
  if (late) return { failure: { message: `gave no answer within ${timeoutMs / 1000} s and was ended` } };
  const last = lines.at(-1);
  return { failure: { message: `crashed with ${ended}${last === undefined ? "" : `: ${last}`}` } };
}

/** The other side of `runProbe`: sends what `work` gives or throws, and ends the process. */
export async function answerProbe(work: () => unknown): Promise<void> {
  let answer: ProbeOutcome<unknown>;
  try {
    answer = { value: await work() };
  } catch (error) {
    const { message } = error as Error;
    const known = error instanceof PeftTrainError ? error : undefined;
    const hint = known?.hint;
    answer = { failure: { code: known?.code ?? "INTERNAL", message, ...(hint !== undefined && { hint }) } };
  }
  process.send?.(answer, () => process.exit(0));
}
