import path from "node:path";
import { Encoder } from "../encoder.js";
import type { Pooling } from "../native/types.js";
import type { EvalMetrics } from "../train/evaluation/evaluate.js";
import { jsonLine } from "../train/json-line.js";
import { ByteProgress } from "./byte-progress.js";
import { DownloadProgress } from "./download-progress.js";
import { prepareEngine } from "./engine.js";
import { EVAL_FLAGS } from "./eval.js";
import { type FlagValues, flagRequest, readFlags, requireFlags, textFlag } from "./flags.js";
import { Interrupt } from "./interrupt.js";
import { ItemProgress } from "./item-progress.js";
import { measured, metricsTable } from "./metrics.js";
import { count, duration } from "./terminal.js";

/** `peft-train eval` */
export async function runEval(args: FlagValues): Promise<void> {
  requireFlags(
    args,
    ["model_name_or_path", "dataset_name"],
    "eval --model_name_or_path=models/e5-small-v2 --adapter=out --dataset_name=test.csv",
  );
  const flags = readFlags(args, EVAL_FLAGS);
  const model = flags.model_name_or_path as string;
  const file = flags.dataset_name as string;
  const device = (flags.device as string | undefined) ?? "cpu";
  const adapter = textFlag(args, "adapter");
  const request = flagRequest(flags);
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  using downloads = new DownloadProgress(args.json === true || args.quiet === true);
  await using encoder = await Encoder.loadAs(model, request, {
    adapter,
    device,
    threads: flags.num_threads as number | undefined,
    pooling: flags.pooling as Pooling | undefined,
    onDownload: downloads.onDownload,
    onNote: downloads.onNote,
    signal: stop.signal,
    engine: () => prepareEngine(device),
  });
  for (const warning of encoder.adapter?.warnings ?? []) process.stderr.write(`warning: ${warning}\n`);
  const progress = args.json === true || args.quiet === true ? undefined : new EvalProgress(file);
  const startedAt = performance.now();
  let metrics: EvalMetrics;
  try {
    metrics = await encoder.evaluate(file, {
      columns: definedOnly({
        question1: flags.question1_column as string | undefined,
        question2: flags.question2_column as string | undefined,
        label: flags.label_column as string | undefined,
        score: flags.score_column as string | undefined,
        negatives: flags.negative_column as readonly string[] | undefined,
      }),
      question1Prefix: (flags.question1_prefix ?? flags.prefix) as string | undefined,
      question2Prefix: (flags.question2_prefix ?? flags.prefix) as string | undefined,
      maxLength: flags.max_length as number | undefined,
      batchSize: flags.per_device_eval_batch_size as number | undefined,
      onRead: progress?.read,
      onProgress: progress?.evaluate,
      signal: stop.signal,
    });
  } finally {
    progress?.stop();
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  if (args.json === true) {
    process.stdout.write(
      `${jsonLine({ model, adapter: adapter ?? null, dataset: file, ...metrics, seconds })}\n`,
    );
  } else {
    process.stdout.write(`${metricsTable(metrics)}\n`);
    if (args.quiet !== true) {
      const { items, noun } = measured(metrics);
      process.stdout.write(`${count(items)} ${noun} of ${file} in ${duration(seconds)}\n`);
    }
  }
}

class EvalProgress {
  private readonly bytes: ByteProgress;
  private readonly examples = new ItemProgress("Evaluating", "examples");

  constructor(file: string) {
    this.bytes = new ByteProgress(`Reading ${path.basename(file)}`);
  }

  readonly read = (bytesRead: number, bytesTotal: number): void => this.bytes.update(bytesRead, bytesTotal);

  readonly evaluate = (done: number, total: number): void => {
    this.bytes.stop();
    this.examples.update(done, total);
  };

  stop(): void {
    this.bytes.stop();
    this.examples.stop();
  }
}

function definedOnly<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}
