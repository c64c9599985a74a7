import path from "node:path";
import { fileSize } from "../../data/file-size.js";
import { ResumableVectors, type VectorSettings } from "../../data/resumable-vectors.js";
import { streamTexts } from "../../data/texts.js";
import { orList, VECTOR_EXTENSIONS, vectorExtension } from "../../data/vectors.js";
import type { Encoder } from "../../encoder.js";
import { PeftTrainError } from "../../errors.js";
import { fingerprint, sha256 } from "../../model/fingerprint.js";
import { ByteProgress } from "../display/byte-progress.js";
import { count, counted, duration } from "../display/terminal.js";
import { type FlagValues, flagRequest, readFlags, requireFlags, textFlag } from "../flags.js";
import { VECTOR_FLAGS } from "../vector-flags.js";
import { Interrupt } from "./interrupt.js";
import { loadEncoder } from "./load-encoder.js";

/** Texts of one call; whole calls make a checkpoint. */
const TEXTS_A_CALL = 2048;
/** Calls under way: while the engine has one, the next is read. */
const CALLS_AHEAD = 2;

/** `peft-train encode` */
export async function runEncode(args: FlagValues): Promise<void> {
  const { input, output } = encodeFiles(args);
  const flags = readFlags(args, VECTOR_FLAGS);
  const column = textFlag(args, "column");
  const request = flagRequest(flags);
  const quiet = args.json === true || args.quiet === true;
  const bytesTotal = await fileSize(input);
  const progress = quiet ? undefined : new ByteProgress(`Encoding ${path.basename(input)}`);
  let bytesRead = 0;
  const groups = streamTexts(input, column, (bytes) => {
    bytesRead += bytes.length;
  });
  // A file that cannot be read is found before a model is fetched and loaded.
  const first = await groups.next();
  const stop = new AbortController();
  using interrupt = new Interrupt(() => {
    stop.abort();
    if (!quiet) process.stderr.write("stopping\n");
  });
  await using encoder = await loadEncoder(args, flags, request, stop.signal);
  const options = {
    prefix: (flags.prefix as string | undefined) ?? encoder.defaults.prefix,
    maxLength: (flags.max_length as number | undefined) ?? encoder.defaults.maxLength,
    normalize: args.normalize !== false,
  };
  const pooling = (flags.pooling as string | undefined) ?? null;
  const settings = () => vectorSettings(encoder, { ...options, pooling, column: column ?? null });
  const startedAt = performance.now();
  let rows = 0;
  await using vectors = await ResumableVectors.open(
    output,
    encoder.dimension,
    settings,
    args.resume === true,
  );
  const { resumedRows } = vectors;
  if (resumedRows > 0 && !quiet) process.stderr.write(`going on after ${count(resumedRows)} vectors\n`);
  try {
    const underWay: { texts: string[]; call: Promise<Float32Array[]> }[] = [];
    const finishOne = async (): Promise<void> => {
      const { texts, call } = underWay.shift() as (typeof underWay)[number];
      await vectors.write(texts, await call);
      progress?.update(bytesRead, bytesTotal);
    };
    for await (let texts of portions(first, groups)) {
      const known = texts.slice(0, Math.max(0, resumedRows - rows));
      rows += texts.length;
      vectors.skip(known);
      texts = texts.slice(known.length);
      if (interrupt.exitCode !== undefined) throw new PeftTrainError("ABORTED", `${output} was not written`);
      if (texts.length === 0) continue;
      const call = encoder.encode(texts, { ...options, signal: stop.signal });
      call.catch(() => {}); // told when its turn comes
      underWay.push({ texts, call });
      if (underWay.length >= CALLS_AHEAD) await finishOne();
    }
    while (underWay.length > 0) await finishOne();
    if (rows === 0) throw new PeftTrainError("DATA_EMPTY", `${input} holds no texts`);
    await vectors.close();
  } catch (error) {
    throw withSafeRows(error, output, vectors.safeRows);
  } finally {
    progress?.stop();
    process.exitCode = interrupt.exitCode;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  if (args.json === true) {
    const resumed = resumedRows > 0 ? { resumed_rows: resumedRows } : {};
    const result = { output, rows, dimension: encoder.dimension, ...resumed, seconds };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } else if (!quiet) {
    const speed = count(Math.round((rows - resumedRows) / seconds));
    process.stdout.write(
      `${output}: ${counted(rows, "vector")} of ${encoder.dimension}, in ${duration(seconds)} (${speed} texts/s)\n`,
    );
  }
}

function encodeFiles(args: FlagValues): { input: string; output: string } {
  const file = textFlag(args, "file");
  if (file !== undefined && args.input !== undefined) {
    throw new PeftTrainError("USAGE", `two inputs: ${file} and --input=${args.input}`, { hint: "Give one." });
  }
  requireFlags(
    { ...args, input: file ?? args.input },
    ["model_name_or_path", "input", "output"],
    "encode texts.txt --model_name_or_path=models/e5-small-v2 --output=vectors.npy",
  );
  const output = textFlag(args, "output") as string;
  if (vectorExtension(output) === undefined) {
    throw new PeftTrainError(
      "USAGE",
      `--output=${output}: expected a name that ends in ${orList(VECTOR_EXTENSIONS)}`,
    );
  }
  return { input: file ?? (textFlag(args, "input") as string), output };
}

/** Texts in portions of `TEXTS_A_CALL`, the last one smaller. */
async function* portions(
  first: IteratorResult<string[]>,
  groups: AsyncGenerator<string[]>,
): AsyncGenerator<string[]> {
  let waiting: string[] = [];
  for (let group = first; !group.done; group = await groups.next()) {
    waiting = waiting.concat(group.value);
    let start = 0;
    for (; waiting.length - start >= TEXTS_A_CALL; start += TEXTS_A_CALL) {
      yield waiting.slice(start, start + TEXTS_A_CALL);
    }
    waiting = waiting.slice(start);
  }
  if (waiting.length > 0) yield waiting;
}

/** What the vectors of a text depend on, for a run that goes on with those of an earlier one. */
async function vectorSettings(encoder: Encoder, chosen: VectorSettings): Promise<VectorSettings> {
  const { weights, tokenizer } = await fingerprint(encoder.model);
  const adapter = encoder.adapter && (await sha256(encoder.adapter.weightsPath)).hash;
  const storage = encoder.storage === undefined ? null : JSON.stringify(encoder.storage);
  const { device } = await encoder.info();
  return { weights, tokenizer, adapter: adapter ?? null, storage, device, ...chosen };
}

/** The error, saying what is left to go on from. */
function withSafeRows(error: unknown, output: string, rows: number): unknown {
  if (!(error instanceof PeftTrainError) || error.code.startsWith("CHECKPOINT_")) return error;
  const stopped = error.code === "ABORTED";
  if (rows === 0) return stopped ? new PeftTrainError("ABORTED", `${output} was not written`) : error;
  const hint = `${count(rows)} vectors are kept: the same command with --resume goes on from there.`;
  return new PeftTrainError(error.code, stopped ? `${output} is not complete` : error.message, {
    hint: error.hint === undefined ? hint : `${error.hint} ${hint}`,
    cause: error,
  });
}
