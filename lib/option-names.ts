import { nearest } from "./data/nearest.js";
import { PeftTrainError } from "./errors.js";

/** The names of an options type. The compiler refuses a list that lacks one, or has one too many. */
export type OptionNames<T> = Readonly<Record<keyof T & string, true>>;

/**
 * Refuses options with a name that is none: an object of JavaScript with a slip of the pen would else be taken, and the slip ignored.
 * @param where What the options are of, for the message.
 * @throws USAGE
 */
export function requireKnownOptions(
  options: object,
  names: Readonly<Record<string, true>>,
  where: string,
): void {
  if (options === null || typeof options !== "object" || Array.isArray(options)) {
    const found = options === null ? "null" : Array.isArray(options) ? "an array" : typeof options;
    throw new PeftTrainError("USAGE", `${where}: expected an object with options, found ${found}`);
  }
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(names, key)) continue;
    const near = nearest(key, Object.keys(names));
    throw new PeftTrainError("USAGE", `unknown option ${key} of ${where}`, {
      hint:
        near === undefined ? `Options are ${Object.keys(names).sort().join(", ")}.` : `Did you mean ${near}?`,
    });
  }
}
