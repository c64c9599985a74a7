import type { LoraInit } from "../../adapter/lora-config.js";
import { parseJsonObject } from "./schedule-settings.js";

/** Of PEFT's init_lora_weights, with true and false as it writes them. */
export const LORA_INITS = [
  "true",
  "false",
  "gaussian",
  "orthogonal",
  "pissa",
  "pissa_niter_N",
  "olora",
  "loftq",
  "eva",
] as const;

/** What the values of a pattern are. */
export type PatternKind = "ranks" | "alphas";

const EXAMPLE: Record<PatternKind, string> = {
  ranks: `a JSON object of whole numbers from 1 to 65536, such as '{"query": 16}'`,
  alphas: `a JSON object of numbers above 0 and at most 1000000, such as '{"query": 32}'`,
};

export function allowedPattern(kind: PatternKind): string {
  return EXAMPLE[kind];
}

/** A pattern as JSON text or as an object; undefined where it is neither or a number is out of range. */
export function parsePattern(value: unknown, kind: PatternKind): Record<string, number> | undefined {
  const pattern = parseJsonObject(value);
  const ok = (number: unknown): boolean => {
    if (typeof number !== "number" || !(number > 0)) return false;
    return kind === "ranks" ? Number.isInteger(number) && number <= 65536 : number <= 1e6;
  };
  return pattern !== undefined && Object.values(pattern).every(ok)
    ? (pattern as Record<string, number>)
    : undefined;
}

/** As PEFT reads init_lora_weights, letters of either case; undefined for what is none. */
export function parseInit(value: unknown): LoraInit | undefined {
  if (typeof value === "boolean") return value;
  if (typeof value !== "string") return undefined;
  const name = value.toLowerCase();
  if (name === "true" || name === "false") return name === "true";
  const known = (LORA_INITS as readonly string[]).includes(name);
  return known || /^pissa_niter_[1-9]\d{0,2}$/.test(name) ? (name as LoraInit) : undefined;
}
