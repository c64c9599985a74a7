import { type CombineResult, combineAdapters } from "../../adapter/combine.js";
import type { CombinationMethod } from "../../adapter/combine-factors.js";
import type { CombineOptions } from "../../adapter/combine-options.js";
import { PeftTrainError } from "../../errors.js";
import { jsonLine } from "../../train/json-line.js";
import { DownloadProgress } from "../display/download-progress.js";
import { ItemProgress } from "../display/item-progress.js";
import { count, duration, shortPath, table } from "../display/terminal.js";
import { type FlagValues, numberFlag, textFlag, wordsOf } from "../flags.js";
import { Interrupt } from "./interrupt.js";

/** `peft-train combine` */
export async function runCombine(args: FlagValues): Promise<void> {
  const adapters = wordsOf(args, "adapters");
  const out = textFlag(args, "out");
  if (adapters.length === 0 || out === undefined) {
    const missing = out === undefined ? "--out" : "the folder of an adapter";
    throw new PeftTrainError("USAGE", `${missing} is required`, {
      hint: "For example: npx peft-train combine out-support out-sales --weights 0.7,0.3 --out out-both",
    });
  }
  const weights = readWeights(textFlag(args, "weights"), adapters);
  const quiet = args.json === true || args.quiet === true;
  const progress = quiet ? undefined : new ItemProgress("Combining", "modules");
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  using downloads = new DownloadProgress(quiet);
  const options: CombineOptions = {
    method: textFlag(args, "method") as CombinationMethod | undefined,
    density: numberFlag(args, "density"),
    majoritySignMethod: textFlag(args, "majority_sign_method") as CombineOptions["majoritySignMethod"],
    svdRank: numberFlag(args, "svd_rank"),
    svdClamp: numberFlag(args, "svd_clamp"),
    seed: numberFlag(args, "seed"),
    onDownload: downloads.onDownload,
    onProgress: (done, total) => progress?.update(done, total),
    signal: stop.signal,
  };
  const startedAt = performance.now();
  let result: CombineResult;
  try {
    result = await combineAdapters(
      adapters.map((adapter, i) => ({ adapter, weight: weights[i] })),
      out,
      options,
    );
  } finally {
    progress?.stop();
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  for (const warning of result.warnings) process.stderr.write(`warning: ${warning}\n`);
  if (args.json === true) process.stdout.write(`${jsonLine({ adapters, ...result, seconds })}\n`);
  else if (!quiet) process.stdout.write(`${report(adapters, result, seconds)}\n`);
}

function readWeights(given: string | undefined, adapters: readonly string[]): number[] {
  if (given === undefined) return adapters.map(() => 1);
  const weights = given.split(",").map((text) => (text.trim() === "" ? Number.NaN : Number(text)));
  if (weights.length === adapters.length && weights.every(Number.isFinite)) return weights;
  throw new PeftTrainError(
    "USAGE",
    `--weights=${given}: expected ${adapters.length} numbers with commas between, one an adapter`,
  );
}

function report(adapters: readonly string[], result: CombineResult, seconds: number): string {
  const { method, weights, modules, truncationError } = result;
  const rows = adapters.map((adapter, i) => [adapter, String(weights[i])]);
  return [
    table(["Adapter", "Weight"], rows, { right: [1] }),
    `${method}: ${modules.length} modules, rank ${result.rank}, ${count(result.parameters)} parameters`,
    ...(truncationError === undefined ? [] : [`lost by the cut to that rank: ${percent(truncationError)}`]),
    differenceLine(result),
    `${shortPath(result.output)}: written in ${duration(seconds)}`,
  ].join("\n");
}

function differenceLine({ method, norm, relativeDifference, modules }: CombineResult): string {
  if (relativeDifference === undefined) return "the weighted sum is zero, and what was written is not";
  if (norm === 0) return "exactly the weighted sum, which is zero";
  if (method === "cat") return "exactly the weighted sum";
  const far = (one: (typeof modules)[number]): number => one.relativeDifference ?? Number.POSITIVE_INFINITY;
  const worst = modules.reduce((a, b) => (far(b) > far(a) ? b : a));
  const most =
    worst.relativeDifference === undefined
      ? `${worst.name} is not zero, as the sum there is`
      : `at most ${percent(worst.relativeDifference)}, of ${worst.name}`;
  return `difference to the weighted sum: ${percent(relativeDifference)}; ${most}`;
}

/** Of Frobenius norms. */
function percent(part: number): string {
  const value = 100 * part;
  return `${value !== 0 && value < 0.01 ? value.toExponential(1) : Number(value.toPrecision(3))} %`;
}
