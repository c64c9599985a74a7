import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CombinationMethod } from "../../lib/adapter/combine-factors.js";
import type { Factors } from "../../lib/adapter/factors.js";
import { type RawTensor, readRaw } from "./quant-golden.js";
import { mulberry32 } from "./tiny-model.js";

/** What PEFT's add_weighted_adapter made of adapters, by test/fixtures/combine/make_golden.py. */
const golden = fileURLToPath(new URL("../fixtures/combine/", import.meta.url));

export const combineAdapter = (name: string): string => join(golden, "adapters", name);

interface Case {
  adapters: string[];
  weights: number[];
  combination_type: CombinationMethod;
  density?: number;
  svd_rank?: number;
  svd_clamp?: number;
  majority_sign_method?: "total" | "frequency";
}

export const manifest: { seed: number; cases: Record<string, Case>; rsloraScale: number; philox: number[] } =
  JSON.parse(readFileSync(join(golden, "manifest.json"), "utf8"));
const tensors = readRaw(join(golden, "combined.safetensors"));

function doubles({ bytes }: RawTensor): number[] {
  return Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readDoubleLE(8 * i));
}

/** Tensors of a case by module. */
export function combined(name: string, side: string): Map<string, number[]> {
  const found = [...tensors].filter(([key]) => key.startsWith(`${name}|`) && key.endsWith(`|${side}`));
  return new Map(found.map(([key, tensor]) => [key.split("|")[1] as string, doubles(tensor)]));
}

/** Largest difference of two lists of numbers; infinite for other lengths. */
export function worst(actual: ArrayLike<number>, wanted: readonly number[]): number {
  if (actual.length !== wanted.length) return Number.POSITIVE_INFINITY;
  return wanted.reduce((most, value, i) => Math.max(most, Math.abs((actual[i] as number) - value)), 0);
}

export const factorsOf = (values: number[], rank: number, inputs: number, outputs: number): Factors => ({
  rank,
  inputs,
  outputs,
  a: Float64Array.from(values.slice(0, rank * inputs)),
  b: Float64Array.from(values.slice(rank * inputs)),
});

export function randomFactors(rank: number, inputs: number, outputs: number, seed: number): Factors {
  const random = mulberry32(seed);
  return factorsOf(
    Array.from({ length: rank * (inputs + outputs) }, () => random() - 0.5),
    rank,
    inputs,
    outputs,
  );
}
