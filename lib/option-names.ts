import { nearest } from "./data/nearest.js";
import { PeftTrainError } from "./errors.js";

/** What an option has to be; `true` where whoever uses it looks closer. */
export type OptionKind = true | "string" | "boolean" | "function" | "AbortSignal";

/** The names of an options type. The compiler refuses a list that lacks one, or has one too many. */
export type OptionNames<T> = Readonly<Record<keyof T & string, OptionKind>>;

/**
 * Refuses options with a name that is none, or of another kind: an object of JavaScript with a slip of the pen would else be taken, and
 * the slip ignored.
 * @param where What the options are of, for the message.
 * @throws USAGE
 */
export function requireKnownOptions(
  options: object,
  names: Readonly<Record<string, OptionKind>>,
  where: string,
): void {
  requireObject(options, where);
  for (const [key, value] of Object.entries(options)) {
    if (Object.hasOwn(names, key)) {
      requireKind(key, value, names[key] as OptionKind, where);
      continue;
    }
    const near = nearest(key, Object.keys(names));
    throw new PeftTrainError("USAGE", `unknown option ${key} of ${where}`, {
      hint:
        near === undefined ? `Options are ${Object.keys(names).sort().join(", ")}.` : `Did you mean ${near}?`,
    });
  }
}

/** @throws USAGE */
export function requireObject(options: unknown, where: string): void {
  if (options !== null && typeof options === "object" && !Array.isArray(options)) return;
  const found = options === null ? "null" : Array.isArray(options) ? "an array" : typeof options;
  throw new PeftTrainError("USAGE", `${where}: expected an object with options, found ${found}`);
}

function requireKind(key: string, value: unknown, kind: OptionKind, where: string): void {
  if (kind === true || value === undefined) return;
  // A signal not by its class, for it may come from another realm.
  const fits =
    kind === "AbortSignal"
      ? typeof (value as AbortSignal | null)?.addEventListener === "function"
      : typeof value === kind;
  if (fits) return;
  const expected = kind === "AbortSignal" ? "an AbortSignal" : `a ${kind}`;
  const found = value === null ? "null" : typeof value;
  throw new PeftTrainError("USAGE", `${key} of ${where}: expected ${expected}, found ${found}`);
}
