import { PeftTrainError } from "../../errors.js";
import { type ConvertOptions, type ConvertResult, convert } from "../../merge/convert.js";
import { jsonLine } from "../../train/json-line.js";
import { shortPath } from "../display/terminal.js";
import { type FlagValues, textFlag } from "../flags.js";
import { prepareEngine } from "./engine.js";
import { Interrupt } from "./interrupt.js";

/** `peft-train convert` */
export async function runConvert(args: FlagValues): Promise<void> {
  const [source, out] = [textFlag(args, "source"), textFlag(args, "out")];
  if (source === undefined || out === undefined) {
    const missing = source === undefined ? "the folder of an adapter or a model" : "--out";
    throw new PeftTrainError("USAGE", `${missing} is required`, {
      hint: "For example: npx peft-train convert models/e5-small-v2-nf4 --out models/e5-small-v2-again",
    });
  }
  const stop = new AbortController();
  using interrupt = new Interrupt(() => stop.abort());
  let result: ConvertResult;
  try {
    result = await convert(source, out, {
      dtype: textFlag(args, "dtype") as ConvertOptions["dtype"],
      layout: textFlag(args, "layout") as ConvertOptions["layout"],
      model: textFlag(args, "model_name_or_path"),
      engine: () => prepareEngine("cpu"),
      signal: stop.signal,
    });
  } finally {
    process.exitCode = interrupt.exitCode;
  }
  const { kind, from, to, output } = result;
  if (args.json === true) process.stdout.write(`${jsonLine({ source, ...result })}\n`);
  else if (args.quiet !== true) {
    const what = kind === "adapter" ? "an adapter" : "a model";
    process.stdout.write(`${shortPath(output)}: ${what}, ${from} in ${source}, now ${to}\n`);
  }
}
