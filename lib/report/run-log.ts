import { readFile } from "node:fs/promises";
import path from "node:path";
import { LOG_FILE, RUN_CONFIG_FILE } from "../adapter/folder.js";
import { fileError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import type { EvaluatedEvent, LogEvent, MemoryEvent, StartedEvent, TrainResult } from "../train/events.js";
import { camelCaseKeys } from "../train/json-line.js";
import type { CurveLine, ReportLine, ScoresLine } from "./lines.js";

/** A run as its folder tells of it. */
export interface RunLog {
  started: StartedEvent;
  memory: MemoryEvent | undefined;
  /** Steps at which it went on from a checkpoint. */
  resumedAt: number[];
  logs: LogEvent[];
  curve: Omit<CurveLine, "event">;
  evaluations: EvaluatedEvent[];
  scores: ScoresLine[];
  report: ReportLine | undefined;
  /** Undefined while it goes on, or where it was killed. */
  finished: TrainResult | undefined;
  /** Every option by its flag; empty before the first save. */
  config: Record<string, unknown>;
}

/** @throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_MALFORMED */
export async function readRunLog(folder: string): Promise<RunLog> {
  const file = path.join(folder, LOG_FILE);
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    const error = fileError(file, cause);
    const hint = `Give the --output_dir of a run: ${LOG_FILE} in it has its losses and metrics.`;
    throw new PeftTrainError(error.code, error.message, { hint, cause });
  });
  const config = await readFile(path.join(folder, RUN_CONFIG_FILE), "utf8").catch(() => "{}");
  return parseRunLog(text, file, JSON.parse(config) as RunLog["config"]);
}

export function parseRunLog(text: string, file: string, config: RunLog["config"]): RunLog {
  const log: Omit<RunLog, "started"> & { started?: StartedEvent } = {
    memory: undefined,
    resumedAt: [],
    logs: [],
    curve: { steps: [], losses: [], learningRates: [], pairsPerSecond: [] },
    evaluations: [],
    scores: [],
    report: undefined,
    finished: undefined,
    config,
  };
  const lines = text.split("\n");
  // The last line of a run that was killed, or goes on, may be half there.
  lines.pop();
  for (const [i, line] of lines.entries()) add(log, parseLine(line, `${file}, line ${i + 1}`));
  const { started } = log;
  if (started === undefined) {
    throw new PeftTrainError("DATA_MALFORMED", `${file} does not tell of the beginning of a run`, {
      hint: "A run writes it anew; nothing may be cut from it.",
    });
  }
  return { ...log, started };
}

function parseLine(line: string, where: string): { event?: string } {
  try {
    return camelCaseKeys(JSON.parse(line)) as { event?: string };
  } catch (cause) {
    throw new PeftTrainError("DATA_MALFORMED", `${where}: expected a JSON object`, { cause });
  }
}

function add(log: Omit<RunLog, "started"> & { started?: StartedEvent }, line: { event?: string }): void {
  switch (line.event) {
    case "started":
      log.started = line as StartedEvent;
      break;
    case "memory":
      log.memory = line as MemoryEvent;
      break;
    case "resumed":
      log.resumedAt.push((line as { step: number }).step);
      break;
    case "log":
      log.logs.push(line as LogEvent);
      break;
    case "evaluated":
      log.evaluations.push(line as EvaluatedEvent);
      break;
    case "scores":
      log.scores.push(line as ScoresLine);
      break;
    case "curve": {
      const { steps, losses, learningRates, pairsPerSecond } = line as CurveLine;
      log.curve.steps.push(...steps);
      log.curve.losses.push(...losses);
      log.curve.learningRates.push(...learningRates);
      log.curve.pairsPerSecond.push(...pairsPerSecond);
      break;
    }
    case "report":
      log.report = line as ReportLine;
      break;
    case "finished":
      log.finished = line as unknown as TrainResult;
      break;
  }
}

/** Scores before any step, and of the adapter that was kept: by its step, or the newest. */
export function scoresBeforeAndAfter({ scores, finished }: Pick<RunLog, "scores" | "finished">): {
  before: ScoresLine | undefined;
  after: ScoresLine | undefined;
} {
  const kept = scores.findLast(({ step }) => step === finished?.savedStep) ?? scores.at(-1);
  return {
    before: scores.find(({ step }) => step === 0),
    after: kept !== undefined && kept.step > 0 ? kept : undefined,
  };
}
