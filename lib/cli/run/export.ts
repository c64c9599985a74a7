import {
  type ExportFormat,
  type ExportOptions,
  type ExportResult,
  exportModel,
} from "../../export/export.js";
import type { Pooling } from "../../native/types.js";
import { jsonLine } from "../../train/json-line.js";
import { DownloadProgress } from "../display/download-progress.js";
import { duration, shortPath, size } from "../display/terminal.js";
import { type FlagValues, prefixFlag, readFlags, requireFlags, textFlag } from "../flags.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";

/** How a program takes what was written. */
const USES: Record<ExportFormat, (folder: string, file: string) => string> = {
  transformers: (folder) => `AutoModel.from_pretrained(${JSON.stringify(folder)})`,
  "sentence-transformers": (folder) => `SentenceTransformer(${JSON.stringify(folder)}).encode(texts)`,
  onnx: (folder) =>
    `await pipeline("feature-extraction", ${JSON.stringify(folder)}, { dtype: "fp32" }) in transformers.js`,
};

/** `peft-train export` */
export async function runExport(args: FlagValues): Promise<void> {
  requireFlags(
    args,
    ["format", "model_name_or_path", "out"],
    "export --format onnx --model models/e5-small-v2 --adapter out --out e5-onnx",
  );
  const [format, model, out] = ["format", "model_name_or_path", "out"].map(
    (name) => textFlag(args, name) as string,
  ) as [ExportFormat, string, string];
  const flags = readFlags(args, ["pooling", "max_length"]);
  const quiet = args.json === true || args.quiet === true;
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  using downloads = new DownloadProgress(quiet);
  const options: ExportOptions = {
    adapter: textFlag(args, "adapter"),
    dtype: textFlag(args, "dtype") as ExportOptions["dtype"],
    pooling: flags.pooling as Pooling | undefined,
    normalize: args.normalize as boolean | undefined,
    sentenceEmbedding: args.sentence_embedding as boolean | undefined,
    queryPrefix: prefixFlag(args, "query_prefix"),
    documentPrefix: prefixFlag(args, "document_prefix"),
    maxLength: flags.max_length as number | undefined,
    engine: () => prepareEngine("cpu"),
    onDownload: downloads.onDownload,
    onNote: downloads.onNote,
    signal: stop.signal,
  };
  const startedAt = performance.now();
  let result: ExportResult;
  try {
    result = await exportModel(model, out, format, options);
  } finally {
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  for (const warning of result.warnings) process.stderr.write(`warning: ${warning}\n`);
  if (args.json === true) {
    const adapter = options.adapter ?? null;
    process.stdout.write(`${jsonLine({ model, adapter, ...result, seconds })}\n`);
  } else if (!quiet) {
    const folder = shortPath(result.output);
    const from = options.adapter === undefined ? model : `${model} with ${options.adapter}`;
    process.stdout.write(
      `${folder}: written from ${from} in ${duration(seconds)}; ${result.weights} has ${size(result.weightsBytes)}\n` +
        `${USES[format](folder, result.weights)}\n`,
    );
  }
}
