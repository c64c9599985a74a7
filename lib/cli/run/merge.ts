import { roundingWarning } from "../../adapter/merge-drift.js";
import { probeTexts } from "../../data/probe-texts.js";
import { type MergeOptions, type MergeResult, mergeAdapter } from "../../merge/merge.js";
import { jsonLine } from "../../train/json-line.js";
import { shellQuote } from "../arguments.js";
import { DownloadProgress } from "../display/download-progress.js";
import { nextSteps } from "../display/next-commands.js";
import { dim, duration, shortPath, size, table } from "../display/terminal.js";
import { type FlagValues, numberFlag, readFlags, requireFlags, textFlag } from "../flags.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";

const PHASES: Record<Parameters<NonNullable<MergeOptions["onPhase"]>>[0], string> = {
  measuring: "encoding the probe ...",
  merging: "writing merged weights ...",
  quantizing: "quantising them ...",
};

/** `peft-train merge` */
export async function runMerge(args: FlagValues): Promise<void> {
  requireFlags(
    args,
    ["model_name_or_path", "adapter", "out"],
    "merge --model models/e5-small-v2 --adapter out --out merged",
  );
  const [model, adapter, out] = ["model_name_or_path", "adapter", "out"].map(
    (name) => textFlag(args, name) as string,
  ) as [string, string, string];
  const { num_threads: threads } = readFlags(args, ["num_threads"]);
  const quiet = args.json === true || args.quiet === true;
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  using downloads = new DownloadProgress(quiet);
  const options: MergeOptions = {
    dtype: textFlag(args, "dtype") as MergeOptions["dtype"],
    tolerance: numberFlag(args, "tolerance"),
    probe: await probeTexts(textFlag(args, "probe"), textFlag(args, "column")),
    threads: threads as number | undefined,
    engine: () => prepareEngine("cpu"),
    onDownload: downloads.onDownload,
    onNote: downloads.onNote,
    onPhase: (phase) => {
      if (!quiet && process.stderr.isTTY) process.stderr.write(dim(`${PHASES[phase]}\n`, process.stderr));
    },
    signal: stop.signal,
  };
  const startedAt = performance.now();
  let result: MergeResult;
  try {
    result = await mergeAdapter(model, adapter, out, options);
  } finally {
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  for (const warning of warningsOf(result)) process.stderr.write(`warning: ${warning}\n`);
  if (args.json === true) process.stdout.write(`${jsonLine({ model, adapter, ...result, seconds })}\n`);
  else if (!quiet) process.stdout.write(`${report(model, adapter, result, seconds)}\n`);
}

function warningsOf({ warnings, quantized, dtype, drift }: MergeResult): string[] {
  return quantized === undefined ? warnings : [...warnings, roundingWarning(dtype, drift)];
}

function report(model: string, adapter: string, result: MergeResult, seconds: number): string {
  const { modules, parameters, dtype, sourceFileBytes, fileBytes, drift, output, prefix } = result;
  // A model's folder has no prefix of its own, as an adapter's has.
  const prefixFlag = prefix === "" ? "" : ` --prefix=${shellQuote(prefix)}`;
  return [
    table(
      ["1 - cosine to base and adapter", "Mean", "Worst"],
      [[`${drift.texts} texts`, drift.mean.toExponential(1), drift.worst.toExponential(1)]],
      { right: [1, 2] },
    ),
    `${modules} modules${parameters === 0 ? "" : ` and ${parameters} parameters`} of ${adapter} are in the weights, ${dtype}: ${size(sourceFileBytes)} before, ${size(fileBytes)} now`,
    `${shortPath(output)}: written from ${model} in ${duration(seconds)}`,
    nextSteps([
      `npx peft-train encode texts.txt --model_name_or_path=${shellQuote(shortPath(output))}${prefixFlag} --out=vectors.npy`,
    ]),
  ].join("\n");
}
