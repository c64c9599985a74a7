import {
  type AdapterDifference,
  diffAdapters,
  type ModuleDifference,
  type ParameterDifference,
} from "../../adapter/difference.js";
import { probeTexts } from "../../data/probe-texts.js";
import { PeftTrainError } from "../../errors.js";
import { type AdapterDrift, measureAdapters } from "../../merge/adapter-drift.js";
import type { VectorDrift } from "../../metrics/vector-drift.js";
import { jsonLine } from "../../train/json-line.js";
import { DownloadProgress } from "../display/download-progress.js";
import { shortened, table } from "../display/terminal.js";
import { type FlagValues, readFlags, textFlag, wordsOf } from "../flags.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";

/** Characters of a text or setting that a table has room for. */
const CELL = 48;

/** `peft-train diff` */
export async function runDiff(args: FlagValues): Promise<void> {
  const adapters = wordsOf(args, "adapters");
  if (adapters.length !== 2) {
    throw new PeftTrainError("USAGE", `expected the folders of two adapters, found ${adapters.length}`, {
      hint: "For example: npx peft-train diff out-monday out-tuesday --model models/e5-small-v2",
    });
  }
  const [a, b] = adapters as [string, string];
  const model = textFlag(args, "model_name_or_path");
  const probe = textFlag(args, "probe");
  if (model === undefined && probe !== undefined) {
    throw new PeftTrainError("USAGE", "--probe needs the base model, which turns its texts into vectors", {
      hint: "Give it as --model.",
    });
  }
  const { num_threads: threads } = readFlags(args, ["num_threads"]);
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  using downloads = new DownloadProgress(args.json === true || args.quiet === true);
  const { onDownload, onNote } = downloads;
  const { signal } = stop;
  const access = { signal, onProgress: onDownload, onNote };
  try {
    const difference = await diffAdapters(a, b, access);
    const drift =
      model === undefined
        ? undefined
        : await measureAdapters(model, [a, b], await probeTexts(probe, textFlag(args, "column")), {
            threads: threads as number | undefined,
            engine: () => prepareEngine("cpu"),
            signal,
            onDownload,
            onNote,
          });
    if (args.json === true) {
      process.stdout.write(`${jsonLine({ a, b, ...difference, ...(drift && { model, drift }) })}\n`);
    } else {
      process.stdout.write(`${report(a, b, difference, drift)}\n`);
    }
  } finally {
    process.exitCode = interrupt.exitCode;
  }
}

function report(
  a: string,
  b: string,
  { modules, parameters, settings, ...whole }: AdapterDifference,
  drift: AdapterDrift | undefined,
): string {
  const ranks = ({ rankA, rankB }: ModuleDifference): string =>
    rankA === rankB ? String(rankA) : `${rankA ?? "-"}, ${rankB ?? "-"}`;
  const figures = (one: Omit<ModuleDifference, "name" | "rankA" | "rankB">): string[] => [
    one.normA.toPrecision(4),
    one.normB.toPrecision(4),
    one.relativeDifference.toPrecision(3),
    one.cosine.toFixed(4),
  ];
  const rows = modules.map((one) => [one.name, ranks(one), ...figures(one)]);
  const head = ["s B A, Frobenius norms", "Rank", `|a|: ${a}`, `|b|: ${b}`, "|a - b| / larger", "Cosine"];
  return [
    table(head, [...rows, ["all", "", ...figures(whole)]], { right: [1, 2, 3, 4, 5] }),
    ...(parameters.length === 0 ? [] : [parameterTable(a, b, parameters)]),
    ...(settings.length === 0 ? ["their settings are the same"] : [settingsTable(a, b, settings)]),
    ...(drift === undefined ? [] : [driftTable(a, b, drift)]),
  ].join("\n");
}

function settingsTable(a: string, b: string, settings: AdapterDifference["settings"]): string {
  const rows = settings.map(([name, x, y]) => [name, JSON.stringify(x), JSON.stringify(y)]);
  const shown = rows.map((row) => row.map((cell) => shortened(cell, CELL)));
  const whole = rows.flat().every((cell) => cell.length <= CELL);
  return table(["Setting", a, b], shown) + (whole ? "" : "\n--json has the settings in full");
}

function parameterTable(a: string, b: string, parameters: readonly ParameterDifference[]): string {
  const rows = parameters.map(({ name, normA, normB, relativeDifference, cosine }) => [
    name,
    normA?.toPrecision(4) ?? "-",
    normB?.toPrecision(4) ?? "-",
    relativeDifference?.toPrecision(3) ?? "-",
    cosine?.toFixed(4) ?? "-",
  ]);
  const head = ["beside A and B, norms", `|a|: ${a}`, `|b|: ${b}`, "|a - b| / larger", "Cosine"];
  return table(head, rows, { right: [1, 2, 3, 4] });
}

function driftTable(a: string, b: string, drift: AdapterDrift): string {
  const row = (name: string, { mean, worst, worstText }: VectorDrift): string[] => [
    name,
    mean.toPrecision(3),
    worst.toPrecision(3),
    shortened(worstText, CELL),
  ];
  const rows = [
    row(`base to ${a}`, drift.a),
    row(`base to ${b}`, drift.b),
    row(`${a} to ${b}`, drift.between),
  ];
  return table([`1 - cosine, ${drift.a.texts} texts`, "Mean", "Worst", "of"], rows, { right: [1, 2] });
}
