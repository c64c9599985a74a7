import { type ResolvedTrainOptions, writableOptions } from "./options.js";

/** Left out of a saved configuration: repeating a run must not replace the one that it repeats, here or on the Hub. */
const NOT_REPEATED = new Set(["overwrite_output_dir", "resume_from_checkpoint", "push_to_hub"]);

/** Text of train_config.json: every option that has a value, under its flag. */
export function runConfig(options: ResolvedTrainOptions): string {
  const kept = Object.entries(writableOptions(options)).filter(
    ([name, value]) => value !== null && !NOT_REPEATED.has(name),
  );
  return `${JSON.stringify(Object.fromEntries(kept), null, 2)}\n`;
}
