import path from "node:path";
import type { EvalMetrics } from "../../train/evaluation/evaluate.js";
import type { RetrievalMetrics } from "../../train/evaluation/evaluate-retrieval.js";
import { jsonLine } from "../../train/json-line.js";
import { EVAL_FLAGS } from "../commands/eval.js";
import { ByteProgress } from "../display/byte-progress.js";
import { ItemProgress } from "../display/item-progress.js";
import { measured, metricsTable } from "../display/metrics.js";
import { count, duration } from "../display/terminal.js";
import { type FlagValues, flagRequest, readFlags, requireFlags, textFlag } from "../flags.js";
import { retrievalFlags } from "../retrieval-flags.js";
import { Interrupt } from "./interrupt.js";
import { loadEncoder } from "./load-encoder.js";

/** `peft-train eval` */
export async function runEval(args: FlagValues): Promise<void> {
  const example = "eval --model_name_or_path=models/e5-small-v2 --adapter=out --dataset_name=test.csv";
  const flags = readFlags(args, EVAL_FLAGS);
  const retrieval = await retrievalFlags(args);
  requireFlags(args, ["model_name_or_path", ...(retrieval === undefined ? ["dataset_name"] : [])], example);
  const model = flags.model_name_or_path as string;
  const file = retrieval?.name ?? (flags.dataset_name as string);
  const adapter = textFlag(args, "adapter");
  const request = flagRequest(flags);
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  await using encoder = await loadEncoder(args, flags, request, stop.signal);
  const progress = args.json === true || args.quiet === true ? undefined : new EvalProgress();
  const startedAt = performance.now();
  const shared = {
    maxLength: flags.max_length as number | undefined,
    batchSize: flags.per_device_eval_batch_size as number | undefined,
    onProgress: progress?.evaluate(retrieval === undefined ? "examples" : "texts"),
    signal: stop.signal,
  };
  const [question1Prefix, question2Prefix] = (["question1_prefix", "question2_prefix"] as const).map(
    (name) => (flags[name] ?? flags.prefix) as string | undefined,
  );
  let metrics: EvalMetrics | RetrievalMetrics;
  try {
    metrics =
      retrieval === undefined
        ? await encoder.evaluate(file, {
            ...shared,
            columns: definedOnly({
              question1: flags.question1_column as string | undefined,
              question2: flags.question2_column as string | undefined,
              label: flags.label_column as string | undefined,
              score: flags.score_column as string | undefined,
              negatives: flags.negative_column as readonly string[] | undefined,
            }),
            question1Prefix,
            question2Prefix,
            onRead: (bytesRead, bytesTotal) => progress?.read(file, bytesRead, bytesTotal),
          })
        : await encoder.evaluateRetrieval(retrieval.files, {
            ...shared,
            queryPrefix: question1Prefix,
            corpusPrefix: question2Prefix,
            ks: retrieval.ks,
            ignoreIdenticalIds: retrieval.ignoreIdenticalIds,
            onRead: progress?.read,
            onNote: (message) => {
              progress?.stop();
              process.stderr.write(`warning: ${message}\n`);
            },
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
  private reading: { file: string; bytes: ByteProgress } | undefined;
  private items: ItemProgress | undefined;

  readonly read = (file: string, bytesRead: number, bytesTotal: number): void => {
    if (this.reading?.file !== file) {
      this.reading?.bytes.stop();
      this.reading = { file, bytes: new ByteProgress(`Reading ${path.basename(file)}`) };
    }
    this.reading.bytes.update(bytesRead, bytesTotal);
  };

  evaluate(unit: string): (done: number, total: number) => void {
    return (done, total) => {
      this.reading?.bytes.stop();
      this.items ??= new ItemProgress("Evaluating", unit);
      this.items.update(done, total);
    };
  }

  stop(): void {
    this.reading?.bytes.stop();
    this.items?.stop();
  }
}

function definedOnly<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}
