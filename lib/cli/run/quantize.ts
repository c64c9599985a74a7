import { PeftTrainError } from "../../errors.js";
import { describeStorage } from "../../model/storage.js";
import { type QuantizeResult, quantizeFolder } from "../../quantize.js";
import { jsonLine } from "../../train/json-line.js";
import { shellQuote } from "../arguments.js";
import { QUANTIZE_FLAGS } from "../commands/quantize.js";
import { DownloadProgress } from "../display/download-progress.js";
import { ItemProgress } from "../display/item-progress.js";
import { nextSteps } from "../display/next-commands.js";
import { count, duration, shortPath, size, table } from "../display/terminal.js";
import { type FlagValues, flagRequest, readFlags, textFlag } from "../flags.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";

/** `peft-train quantize` */
export async function runQuantize(args: FlagValues): Promise<void> {
  const [source, named] = [textFlag(args, "source"), textFlag(args, "model_name_or_path")];
  if (source !== undefined && named !== undefined) {
    throw new PeftTrainError("USAGE", `two models: ${source} and --model_name_or_path=${named}`, {
      hint: "Give one.",
    });
  }
  const [model, out] = [source ?? named, textFlag(args, "out")];
  if (model === undefined || out === undefined) {
    const missing = model === undefined ? "the folder of a model" : "--out";
    throw new PeftTrainError("USAGE", `${missing} is required`, {
      hint: "For example: npx peft-train quantize models/e5-small-v2 --out models/e5-small-v2-nf4",
    });
  }
  const request = quantizeFlags(args);
  const quiet = args.json === true || args.quiet === true;
  const progress = quiet ? undefined : new ItemProgress("Quantising", "matrices");
  const stop = new AbortController();
  using interrupt = new Interrupt(() => {
    stop.abort();
    if (!quiet) process.stderr.write("stopping after this matrix; Ctrl-C again ends at once\n");
  });
  using downloads = new DownloadProgress(quiet);
  const startedAt = performance.now();
  let result: QuantizeResult;
  try {
    result = await quantizeFolder(model, out, request, {
      engine: () => prepareEngine("cpu"),
      onProgress: (done, total) => progress?.update(done, total),
      onDownload: downloads.onDownload,
      signal: stop.signal,
    });
  } finally {
    progress?.stop();
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  if (args.json === true) process.stdout.write(`${jsonLine({ model, ...result, seconds })}\n`);
  else if (!quiet) process.stdout.write(`${report(model, result, seconds)}\n`);
}

/** 4 bits unless --int8 says otherwise. */
function quantizeFlags(args: FlagValues): ReturnType<typeof flagRequest> {
  const flags = readFlags(args, QUANTIZE_FLAGS);
  const eight = args.int8 === true;
  try {
    return flagRequest({ ...flags, load_in_4bit: !eight, load_in_8bit: eight });
  } catch (error) {
    if (!(error instanceof PeftTrainError)) throw error;
    throw new PeftTrainError(error.code, `${error.message}${eight ? ", and --int8 writes 8" : ""}`, {
      hint: eight ? "Leave out either." : "Give --int8 with it, or leave it out.",
      cause: error,
    });
  }
}

function report(
  model: string,
  { output, storage, report, ...files }: QuantizeResult,
  seconds: number,
): string {
  const { parameters, sourceBytes, bytes, tensors } = report;
  const each = (total: number): string => (total / parameters).toFixed(3);
  const rows = [
    [`${tensors} matrices, ${count(parameters)} weights`, size(sourceBytes), size(bytes)],
    ["bytes a weight", each(sourceBytes), each(bytes)],
    ["model.safetensors", size(files.sourceFileBytes), size(files.fileBytes)],
  ];
  const kept = report.outliers > 0 ? `, ${count(report.outliers)} weights in float16` : "";
  const skipped = "of encoder layers beyond config.json's num_hidden_layers left out";
  const folder = shellQuote(shortPath(output));
  return [
    table([describeStorage(storage), "Before", "After"], rows, { right: [1, 2] }),
    `relative error of the weights ${report.relativeError.toPrecision(3)} (Frobenius)${kept}`,
    ...(report.leftOut > 0 ? [`${count(report.leftOut)} tensors ${skipped}`] : []),
    `${shortPath(output)}: written from ${model} in ${duration(seconds)}`,
    nextSteps([
      `npx peft-train eval --model_name_or_path=${folder} --dataset_name=test.csv`,
      `npx peft-train --model_name_or_path=${folder} --dataset_name=train.csv --eval_dataset_name=test.csv --output_dir=out`,
    ]),
  ].join("\n");
}
