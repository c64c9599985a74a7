import { byFlag, type ResolvedTrainOptions } from "./options.js";

/** Left out of a saved configuration: repeating a run must not replace the one that it repeats. */
const NOT_REPEATED = new Set(["overwrite_output_dir"]);

/** Text of train_config.json: every option that has a value, under its flag. */
export function runConfig(options: ResolvedTrainOptions): string {
  const kept = Object.entries(byFlag(options)).filter(
    ([name, value]) => value !== null && !NOT_REPEATED.has(name),
  );
  return `${JSON.stringify(Object.fromEntries(kept), null, 2)}\n`;
}
