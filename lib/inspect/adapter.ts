import path from "node:path";
import type { LoraFactors } from "../adapter/factors.js";
import { CONFIG_FILE, RUN_CONFIG_FILE } from "../adapter/folder.js";
import type { AdapterRecord } from "../adapter/record.js";
import { readStoredAdapter, type StoredAdapter } from "../adapter/stored-adapter.js";
import { type JsonObject, readJsonObject } from "../model/json-file.js";
import { readManifest } from "../train/checkpoint/manifest.js";
import { asProblem, type Problem } from "./inspect.js";

/** What adapter_config.json, peft_train.json and the tensors say, as far as they can be read. */
export interface AdapterDescription {
  /** As adapter_config.json has it, `LORA`; null where it says none. */
  peftType: string | null;
  /** Name or path of the base model, as adapter_config.json has it. */
  baseModel: string | null;
  /** More than A and B: use_dora, lora_bias, bias, modules_to_save, or how it took A and B out of the base. */
  variants: string[];
  /** Rank of modules that no pattern names. */
  r: number | null;
  /** Alpha of modules that no pattern names. */
  loraAlpha: number | null;
  /** As adapter_config.json has it: a list of names, an expression, or null. */
  targetModules: unknown;
  /** Modules with a pair of matrices; undefined where they cannot be read. */
  modules: number | undefined;
  /** Ranks and scales of modules, each once. */
  ranks: number[];
  /** Likewise: alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  scales: number[];
  /** Numbers in all its tensors; undefined where they cannot be read. */
  parameters: number | undefined;
  /** Names of tensors as PEFT writes them for an encoder, or for one inside a wrapper. */
  layout: "plain" | "wrapped" | undefined;
  /** Of peft_train.json: what its texts were like, and its base. */
  record: Omit<AdapterRecord, "training"> | undefined;
  /** Bytes that it takes once loaded, with the gradients that training keeps. */
  memory: number | undefined;
  /** Whether train_config.json is there, which repeats the run. */
  runConfig: boolean;
}

/** Where a checkpoint stood when it was saved. */
export interface CheckpointDescription {
  /** Optimiser steps done. */
  step: number;
  /** Whole epochs, evaluated and saved. */
  epochsEnded: number;
}

/** @param found What is wrong with the weights already. */
export async function describeAdapter(
  folder: string,
  kind: "adapter" | "checkpoint",
  found: Problem | undefined,
): Promise<{
  adapter: AdapterDescription;
  checkpoint: CheckpointDescription | undefined;
  problem: Problem | undefined;
}> {
  const config = (await readJsonObject(path.join(folder, CONFIG_FILE)).catch(() => undefined)) ?? {};
  let problem = found;
  let stored: StoredAdapter | undefined;
  let checkpoint: CheckpointDescription | undefined;
  try {
    stored = await readStoredAdapter(folder, {}, "any");
    if (kind === "checkpoint") {
      const { step, epochsEnded } = await readManifest(folder);
      checkpoint = { step, epochsEnded };
    }
  } catch (error) {
    problem ??= asProblem(error);
  }
  const run = await readJsonObject(path.join(folder, RUN_CONFIG_FILE)).catch(() => undefined);
  return {
    adapter: { ...settingsOf(config), ...matricesOf(stored), runConfig: run !== undefined },
    checkpoint,
    problem,
  };
}

function parametersOf({ a, b, magnitude, bias }: LoraFactors): number {
  return a.length + b.length + (magnitude?.length ?? 0) + (bias?.length ?? 0);
}

function settingsOf(
  config: JsonObject,
): Pick<AdapterDescription, "peftType" | "baseModel" | "variants" | "r" | "loraAlpha" | "targetModules"> {
  const text = (key: string): string | null => (typeof config[key] === "string" ? config[key] : null);
  const number = (key: string): number | null => (typeof config[key] === "number" ? config[key] : null);
  return {
    peftType: text("peft_type"),
    baseModel: text("base_model_name_or_path"),
    variants: variantsOf(config),
    r: number("r"),
    loraAlpha: number("lora_alpha"),
    targetModules: config.target_modules ?? null,
  };
}

function matricesOf(
  stored: StoredAdapter | undefined,
): Pick<AdapterDescription, "modules" | "ranks" | "scales" | "parameters" | "layout" | "record" | "memory"> {
  const all = [...(stored?.modules.values() ?? [])];
  const distinct = (values: number[]): number[] => [...new Set(values)].sort((a, b) => a - b);
  const own = [...(stored?.own.values() ?? [])].reduce((sum, { values }) => sum + values.length, 0);
  const parameters = stored && all.reduce((sum, one) => sum + parametersOf(one), own);
  const { training: _, ...record } = stored?.record ?? { training: undefined };
  return {
    modules: stored?.modules.size,
    ranks: distinct(all.map(({ rank }) => rank)),
    scales: distinct(all.map(({ scale }) => scale)),
    parameters,
    layout: stored?.layout,
    record: stored?.record && (record as Omit<AdapterRecord, "training">),
    memory: parameters === undefined ? undefined : 8 * parameters,
  };
}

function variantsOf(config: JsonObject): string[] {
  const init = config.init_lora_weights;
  const named = ["use_rslora", "use_dora", "lora_bias"].filter((key) => config[key] === true);
  const { bias, modules_to_save: saved } = config;
  if (typeof bias === "string" && bias !== "none") named.push(`bias ${bias}`);
  if (Array.isArray(saved) && saved.length > 0) named.push(`modules_to_save ${saved.join(", ")}`);
  return typeof init === "string" ? [...named, init] : named;
}
