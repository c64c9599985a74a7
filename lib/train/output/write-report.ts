import { type ExampleTexts, readExampleTexts } from "../../data/example-texts.js";
import { subset } from "../../data/examples.js";
import { PeftTrainError } from "../../errors.js";
import type { NativeEncoder } from "../../native/types.js";
import type { Mistake, ReportLine, ScoresLine } from "../../report/lines.js";
import { renderReport } from "../../report/page.js";
import { readRunLog, scoresBeforeAndAfter } from "../../report/run-log.js";
import { evaluateExamples } from "../evaluation/evaluate.js";
import type { TrainResult } from "../events.js";
import { exampleColumns, type Plan, type TrainData } from "../preparation.js";
import type { OutputFolder } from "./output.js";

/** Characters of a text that are shown. */
const MOST_SHOWN = 400;

interface RunParts {
  plan: Plan;
  data: TrainData;
  /** Gives the vectors of the base model where its adapter is off. */
  base: NativeEncoder;
  output: OutputFolder;
}

/** Logs what only the end of a run knows and its report shows. */
export async function logForReport(parts: RunParts, result: TrainResult): Promise<void> {
  const { data, output } = parts;
  const { scores } = await readRunLog(output.path);
  const { before, after = before } = scoresBeforeAndAfter({ scores, finished: result });
  const line: ReportLine = {
    event: "report",
    step: after?.step ?? null,
    // In KiB on every system.
    peakResidentBytes: 1024 * process.resourceUsage().maxRSS,
    evalFile: data.evaluation?.path ?? null,
    ...(after === undefined ? { missingTexts: null, mistakes: [] } : await mistakes(parts, after)),
  };
  await output.log(line);
}

/** @throws OUTPUT_UNWRITABLE */
export async function writeReport(output: OutputFolder): Promise<void> {
  const html = renderReport(await readRunLog(output.path));
  await output.saveReport(html).catch((cause: PeftTrainError) => {
    const hint = `All else is there. Make room, then: npx peft-train report ${output.path}`;
    throw new PeftTrainError(cause.code, cause.message, { hint, cause });
  });
}

/** The mistakes of an evaluation with their texts, and how the base model saw them. */
async function mistakes(
  { plan, data, base }: RunParts,
  { worst }: ScoresLine,
): Promise<Pick<ReportLine, "missingTexts" | "mistakes">> {
  const { evaluation } = data;
  if (evaluation === undefined || worst.length === 0) return { missingTexts: null, mistakes: [] };
  const examples = worst.map(({ example }) => example);
  let texts: ExampleTexts[] = [];
  let missingTexts: string | null = null;
  try {
    texts = await readExampleTexts(evaluation, examples, exampleColumns(plan.options));
  } catch (error) {
    if (!(error instanceof PeftTrainError)) throw error;
    missingTexts = error.message;
  }
  let before: Float32Array = new Float32Array(0);
  await evaluateExamples(base, subset(evaluation, Int32Array.from(examples)), {
    batchSize: plan.options.perDeviceEvalBatchSize,
    adapter: false,
    onScores: (scores) => {
      before = scores;
    },
  });
  const scoresEach = before.length / examples.length;
  const shown = worst.map((found, i): Mistake => {
    const others = found.texts.slice(1);
    const read = texts[i];
    return {
      place: read?.place ?? `example ${found.example + 1}`,
      label:
        evaluation.kind === "labels" || evaluation.kind === "scores"
          ? (evaluation.labels[found.example] as number)
          : null,
      texts: read === undefined ? [] : found.texts.map((text) => cut(read.texts[text] as string)),
      before: (others.length === 0 ? [1] : others).map((text) =>
        rounded(before[i * scoresEach + text - 1] as number),
      ),
      after: found.scores.map(rounded),
    };
  });
  return { missingTexts, mistakes: shown };
}

function cut(text: string): string {
  const characters = [...text];
  return characters.length <= MOST_SHOWN ? text : `${characters.slice(0, MOST_SHOWN).join("")}...`;
}

function rounded(value: number): number {
  return Number(value.toFixed(4));
}
