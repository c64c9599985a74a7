import { shellQuote, withoutFlags } from "../arguments.js";

/** Flags that the command which goes on has in another way, or that must not be shown. */
const LEFT_OUT = new Set(["resume_from_checkpoint", "overwrite_output_dir", "hub_token"]);

/** The command that goes on where a run was stopped. @param typed What was typed, normalised. */
export function resumeCommand(typed: readonly string[]): string {
  const kept = withoutFlags(typed, LEFT_OUT).map(shellQuote);
  return ["npx peft-train", ...kept, "--resume_from_checkpoint=latest"].join(" ");
}
