import { stat } from "node:fs/promises";
import path from "node:path";
import { CONFIG_FILE, openAdapterFolder } from "../adapter/folder.js";
import { configInLayout } from "../adapter/layout.js";
import { type KeyLayout, readStoredAdapter, type StoredAdapter } from "../adapter/stored-adapter.js";
import { writeFactors } from "../adapter/write-factors.js";
import { AtomicFolder } from "../data/atomic-folder.js";
import type { LoadOptions } from "../encoder-options.js";
import { PeftTrainError } from "../errors.js";
import { openModelFolder } from "../model/folder.js";
import { describeStorage } from "../model/storage.js";
import type { FloatType } from "../model/tensor-writer.js";
import { type OptionNames, requireKnownOptions } from "../option-names.js";
import { readMergeable } from "./mergeable.js";
import { writeModelFolder } from "./model-folder.js";

export const CONVERT_TYPES: readonly FloatType[] = ["float32", "float16", "bfloat16"];
export const KEY_LAYOUTS: readonly KeyLayout[] = ["plain", "wrapped"];

/** Into what an adapter or a model is converted. */
export interface ConvertOptions {
  /** How numbers are held. Default: float32. */
  dtype?: FloatType | undefined;
  /** Adapters: names of tensors as PEFT writes them for an encoder (plain, the default), or for one that is `model` of a wrapper. */
  layout?: KeyLayout | undefined;
  /** Base model of an adapter of PiSSA or OLoRA as PEFT saves it, which becomes plain LoRA over it. */
  model?: string | undefined;
  /** Where the engine comes from, which only such adapters need. */
  engine?: LoadOptions["engine"];
  /** Ends the work with ABORTED; nothing is written then. */
  signal?: AbortSignal | undefined;
}

const CONVERT_OPTIONS: OptionNames<ConvertOptions> = {
  dtype: true,
  layout: true,
  model: true,
  engine: "function",
  signal: "AbortSignal",
};

/** What a conversion has written. */
export interface ConvertResult {
  /** Absolute. */
  output: string;
  /** What the source was. */
  kind: "adapter" | "model";
  /** What was found, and what was written. */
  from: string;
  /** Likewise of what was written. */
  to: string;
}

/**
 * Writes an adapter or a model in another form: an adapter's names of tensors, the type of the numbers, and weights in 4 or 8 bits as
 * the plain numbers that their codes stand for. (`quantize` goes the other way.)
 * @param output A folder that is not there, or empty; it appears whole or not at all.
 * @throws USAGE, NOT_FINITE (beyond float16), OUTPUT_EXISTS, OUTPUT_UNWRITABLE, ABORTED, and as for reading either.
 */
export async function convert(
  source: string,
  output: string,
  options: ConvertOptions = {},
): Promise<ConvertResult> {
  requireKnownOptions(options, CONVERT_OPTIONS, "convert");
  const dtype = options.dtype ?? "float32";
  const { layout } = options;
  for (const [name, value, values] of [
    ["dtype", dtype, CONVERT_TYPES],
    ["layout", layout ?? "plain", KEY_LAYOUTS],
  ] as const) {
    if ((values as readonly string[]).includes(value)) continue;
    const hint = ["nf4", "fp4", "int8"].includes(value)
      ? "npx peft-train quantize MODEL --out DIR writes 4 and 8 bits."
      : undefined;
    throw new PeftTrainError(
      "USAGE",
      `${name}: expected one of ${values.join(", ")}, found ${JSON.stringify(value)}`,
      hint === undefined ? {} : { hint },
    );
  }
  const isAdapter = await stat(path.join(source, CONFIG_FILE)).then(
    () => true,
    () => false,
  );
  const forAdapters = layout !== undefined ? "layout" : options.model !== undefined ? "model" : undefined;
  if (!isAdapter && forAdapters !== undefined) {
    throw new PeftTrainError(
      "USAGE",
      `${forAdapters} is for adapters, and ${source} is none: it has no ${CONFIG_FILE}`,
      {
        hint: "Leave it out, or give the folder of an adapter.",
      },
    );
  }
  return isAdapter
    ? convertAdapter(source, output, dtype, options)
    : convertModel(source, output, dtype, options.signal);
}

async function convertAdapter(
  source: string,
  output: string,
  dtype: FloatType,
  options: ConvertOptions,
): Promise<ConvertResult> {
  const { layout = "plain", signal } = options;
  const adapter = await readAdapter(source, options);
  await using folder = await AtomicFolder.create(output);
  await writeFactors(folder.draft, {
    modules: adapter.modules,
    own: adapter.own,
    config: configInLayout(adapter, layout),
    record: adapter.record,
    dtype,
    layout,
    tokenizer: adapter.folder,
  });
  stopIf(signal, output);
  await folder.commit();
  const from = `${adapter.layout} names, ${adapter.dtypes.join(" and ")}`;
  return { output: folder.path, kind: "adapter", from, to: `${layout} names, ${dtype}` };
}

async function readAdapter(source: string, options: ConvertOptions): Promise<StoredAdapter> {
  const { model, signal } = options;
  if (model === undefined) return readStoredAdapter(source);
  const base = await openModelFolder(model, { signal });
  return readMergeable(await openAdapterFolder(source, base, { signal }), base, options);
}

async function convertModel(
  source: string,
  output: string,
  dtype: FloatType,
  signal: AbortSignal | undefined,
): Promise<ConvertResult> {
  const model = await openModelFolder(source, { signal });
  await using folder = await AtomicFolder.create(output);
  await writeModelFolder(folder.draft, model, undefined, dtype);
  stopIf(signal, output);
  await folder.commit();
  const from = model.quantized === undefined ? "plain numbers" : describeStorage(model.quantized);
  return { output: folder.path, kind: "model", from, to: dtype };
}

function stopIf(signal: AbortSignal | undefined, output: string): void {
  if (signal?.aborted) throw new PeftTrainError("ABORTED", `stopped; ${output} was not written`);
}
