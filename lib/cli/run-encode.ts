import { readTexts } from "../data/texts.js";
import { openVectorWriter, type VectorWriter } from "../data/vectors.js";
import { Encoder } from "../encoder.js";
import { PeftTrainError } from "../errors.js";
import type { Pooling } from "../native/types.js";
import { DownloadProgress } from "./download-progress.js";
import { ENCODE_FLAGS } from "./encode.js";
import { prepareEngine } from "./engine.js";
import { type FlagValues, flagRequest, readFlags, requireFlags, textFlag } from "./flags.js";
import { Interrupt } from "./interrupt.js";
import { ItemProgress } from "./item-progress.js";
import { count, duration } from "./terminal.js";

/** Texts between two looks at Ctrl-C and the progress bar; enough of them to sort by length. */
const TEXTS_AT_A_TIME = 2048;

/** `peft-train encode` */
export async function runEncode(args: FlagValues): Promise<void> {
  requireFlags(
    args,
    ["model_name_or_path", "input", "output"],
    "encode --model_name_or_path=models/e5-small-v2 --input=texts.txt --output=vectors.npy",
  );
  const flags = readFlags(args, ENCODE_FLAGS);
  const [input, output] = [textFlag(args, "input") as string, textFlag(args, "output") as string];
  const column = textFlag(args, "column");
  const device = (flags.device as string | undefined) ?? "cpu";
  const request = flagRequest(flags);
  const quiet = args.json === true || args.quiet === true;
  if (!/\.(npy|jsonl)$/i.test(output)) {
    throw new PeftTrainError("USAGE", `--output=${output}: expected a name that ends in .npy or .jsonl`);
  }
  const texts = await readTexts(input, column);
  const stop = new AbortController();
  using interrupt = new Interrupt(() => {
    stop.abort();
    if (!quiet) process.stderr.write("stopping\n");
  });
  using downloads = new DownloadProgress(quiet);
  await using encoder = await Encoder.loadAs(flags.model_name_or_path as string, request, {
    adapter: textFlag(args, "adapter"),
    device,
    threads: flags.num_threads as number | undefined,
    pooling: flags.pooling as Pooling | undefined,
    onDownload: downloads.onDownload,
    onNote: downloads.onNote,
    signal: stop.signal,
    engine: () => prepareEngine(device),
  });
  for (const warning of encoder.adapter?.warnings ?? []) process.stderr.write(`warning: ${warning}\n`);
  const startedAt = performance.now();
  const progress = quiet ? undefined : new ItemProgress("Encoding", "texts");
  try {
    await using writer = await openVectorWriter(output, encoder.dimension);
    const options = {
      prefix: flags.prefix as string | undefined,
      maxLength: flags.max_length as number | undefined,
      normalize: args.normalize !== false,
    };
    for (let i = 0; i < texts.length; i += TEXTS_AT_A_TIME) {
      if (interrupt.exitCode !== undefined) throw new PeftTrainError("ABORTED", `${output} was not written`);
      const rows = await encoder.encode(texts.slice(i, i + TEXTS_AT_A_TIME), options);
      await writeRows(writer, rows);
      progress?.update(Math.min(i + TEXTS_AT_A_TIME, texts.length), texts.length);
    }
    await writer.close();
  } finally {
    progress?.stop();
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  if (args.json === true) {
    const result = { output, rows: texts.length, dimension: encoder.dimension, seconds };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } else if (!quiet) {
    const speed = count(Math.round(texts.length / seconds));
    process.stdout.write(
      `${output}: ${count(texts.length)} vectors of ${encoder.dimension}, in ${duration(seconds)} (${speed} texts/s)\n`,
    );
  }
}

/** Rows of one call lie side by side in memory, but nothing says so; a copy keeps the writer's promise. */
async function writeRows(writer: VectorWriter, rows: Float32Array[]): Promise<void> {
  for (const row of rows) await writer.write(row);
}
