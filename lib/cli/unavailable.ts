import { PeftTrainError } from "../errors.js";
import { UNAVAILABLE_OPTIONS } from "../train/options/option-table.js";
import { shellQuote, withoutFlags } from "./arguments.js";
import type { FlagValues } from "./flags.js";

/**
 * Refuses flags that are understood and not there yet: all at once, with the command line that is left without them.
 * @param args As yargs read them; `typed` as they were typed, normalised.
 * @throws NOT_YET_AVAILABLE
 */
export function refuseUnavailable(args: FlagValues, typed: readonly string[]): void {
  const refused = Object.entries(UNAVAILABLE_OPTIONS)
    .filter(([name, { off }]) => args[name] !== undefined && !off.includes(String(args[name])))
    .map(([name]) => name);
  const precision = args.mixed_precision;
  if (precision === "fp8") refused.unshift("mixed_precision");
  if (refused.length === 0) return;
  const names = refused.map((name) => (name === "mixed_precision" ? `--${name}=${precision}` : `--${name}`));
  const rest = withoutFlags(withoutToken(typed), new Set(refused)).map(shellQuote).join(" ");
  throw new PeftTrainError(
    "NOT_YET_AVAILABLE",
    `${names.join(", ")} ${names.length > 1 ? "are" : "is"} not available in this version`,
    { hint: `Leave ${names.length > 1 ? "them" : "it"} out: npx peft-train ${rest}` },
  );
}

/** What may be shown again of a command line. */
function withoutToken(typed: readonly string[]): string[] {
  return typed.map((arg, i) => {
    if (arg.startsWith("--hub_token=")) return "--hub_token=...";
    return typed[i - 1] === "--hub_token" ? "..." : arg;
  });
}
