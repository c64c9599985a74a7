import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { CONFIG_FILE, WEIGHTS_FILE } from "../adapter/folder.js";
import { fileError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import { readSentenceModules } from "../model/pooling.js";
import { MANIFEST_FILE } from "../train/checkpoint/manifest.js";
import { type AdapterDescription, type CheckpointDescription, describeAdapter } from "./adapter.js";
import { describeModel, type ModelDescription } from "./model.js";
import { describeTensors, type TensorsDescription } from "./tensors.js";

/** Why this package does not take it, where it does not. */
export interface Problem {
  /** One of `ERROR_CODES`, where it is an error of this package. */
  code: string;
  /** What was expected and what was found. */
  message: string;
  /** What to do next. */
  hint: string | undefined;
}

/** What a folder or file is. */
export interface Inspection {
  /** `tensors` is a safetensors file alone, `onnx` a folder of an ONNX export. */
  kind: "model" | "adapter" | "checkpoint" | "onnx" | "tensors";
  /** As it was given. */
  path: string;
  /** Of a model or an ONNX export. */
  model: ModelDescription | undefined;
  /** Of an adapter or a checkpoint. */
  adapter: AdapterDescription | undefined;
  /** Of a checkpoint. */
  checkpoint: CheckpointDescription | undefined;
  /** Of the file of weights; undefined where there is none, or it cannot be read. */
  weights: TensorsDescription | undefined;
  /** Why this package does not take it; undefined where it does. */
  problem: Problem | undefined;
}

/**
 * Says what a folder (a model, an adapter, a checkpoint, an ONNX export) or a safetensors file is and what it would take to load it,
 * also where this package cannot: then `problem` says why. Nothing is loaded.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_UNSUPPORTED for what is none of these.
 */
export async function inspect(given: string): Promise<Inspection> {
  const names = await namesIn(given);
  const none = { model: undefined, adapter: undefined, checkpoint: undefined, weights: undefined };
  const shared = { path: given, problem: undefined, ...none };
  if (names === undefined) return { kind: "tensors", ...shared, weights: await describeTensors(given) };
  if (names.includes(CONFIG_FILE) || names.includes(WEIGHTS_FILE)) {
    const kind = names.includes(MANIFEST_FILE) ? "checkpoint" : "adapter";
    const file = path.join(given, WEIGHTS_FILE);
    const { weights, problem } = await weightsOf(file, names.includes(WEIGHTS_FILE));
    return { kind, ...shared, ...(await describeAdapter(given, kind, problem)), weights };
  }
  const modules = await readSentenceModules(given).catch(() => ({ transformerPath: "" }));
  const folder = path.join(given, modules.transformerPath);
  const inside = (await namesIn(folder)) ?? [];
  if (inside.includes("config.json")) {
    const onnx = (await namesIn(path.join(folder, "onnx")).catch(() => [])) ?? [];
    const file = path.join(folder, "model.safetensors");
    const { weights, problem } = await weightsOf(file, inside.includes("model.safetensors"));
    const kind = weights === undefined && onnx.includes("model.onnx") ? "onnx" : "model";
    const described = await describeModel(given, folder, kind === "onnx" ? "onnx" : "model", problem);
    return { kind, ...shared, ...described, weights };
  }
  throw new PeftTrainError(
    "MODEL_UNSUPPORTED",
    `${given} is no model, adapter or checkpoint: it has neither config.json nor ${CONFIG_FILE}; it holds ${listed(names)}`,
    { hint: "Give a folder that holds one of them, or a .safetensors file." },
  );
}

/** Names in a folder; undefined for a file. */
async function namesIn(given: string): Promise<string[] | undefined> {
  try {
    return (await stat(given)).isDirectory() ? await readdir(given) : undefined;
  } catch (cause) {
    throw fileError(given, cause);
  }
}

async function weightsOf(
  file: string,
  exists: boolean,
): Promise<{ weights?: TensorsDescription; problem?: Problem }> {
  if (!exists) return {};
  try {
    return { weights: await describeTensors(file) };
  } catch (error) {
    return { problem: asProblem(error) };
  }
}

/** @throws What is no error of ours. */
export function asProblem(error: unknown): Problem {
  if (!(error instanceof PeftTrainError)) throw error;
  return { code: error.code, message: error.message, hint: error.hint };
}

function listed(names: readonly string[]): string {
  if (names.length === 0) return "nothing";
  return names.slice(0, 4).join(", ") + (names.length > 4 ? ` and ${names.length - 4} more` : "");
}
