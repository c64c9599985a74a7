import { type OptionName, TRAIN_OPTIONS } from "../train/option-table.js";
import { shellQuote } from "./arguments.js";

/** Flags that the command which goes on has in another way, or that must not be shown. */
const LEFT_OUT = new Set(["resume_from_checkpoint", "overwrite_output_dir", "hub_token"]);

/** The command that goes on where a run was stopped. @param typed What was typed, normalised. */
export function resumeCommand(typed: readonly string[]): string {
  const kept: string[] = [];
  for (let i = 0; i < typed.length; i++) {
    const arg = typed[i] as string;
    const [, name = "", value] = /^--(?:no-)?(\w+)(=[\s\S]*)?$/.exec(arg) ?? [];
    if (!LEFT_OUT.has(name)) {
      kept.push(arg);
      continue;
    }
    const isSwitch = TRAIN_OPTIONS[name as OptionName]?.type === "boolean";
    if (value === undefined && !isSwitch && typed[i + 1]?.startsWith("-") === false) i++;
  }
  return ["npx peft-train", ...kept.map(shellQuote), "--resume_from_checkpoint=latest"].join(" ");
}
