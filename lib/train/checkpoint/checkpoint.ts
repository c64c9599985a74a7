import { readFile } from "node:fs/promises";
import path from "node:path";
import { writeDurably } from "../../adapter/durable.js";
import { LOG_FILE } from "../../adapter/folder.js";
import { type AdapterRecord, RECORD_FILE, readRecord } from "../../adapter/record.js";
import { fileError } from "../../data/file-error.js";
import { PeftTrainError } from "../../errors.js";
import { readJsonObject } from "../../model/json-file.js";
import type { Evaluation, SavedEvent } from "../events.js";
import { camelCaseKeys, jsonLine, snakeCaseKeys } from "../json-line.js";
import { weightsFileFor } from "../output/saved-model.js";
import type { LossScaleState } from "../step/loss-scale.js";
import type { FoundCheckpoint } from "./find-checkpoint.js";
import type { Manifest, Position } from "./manifest.js";

const OPTIMIZER_FILE = "optimizer.safetensors";
const STATE_FILE = "checkpoint.json";
/** Weights of the best evaluation so far, where they are kept and are not the checkpoint's own. */
export const bestWeightsFile = (weightsFile: string): string => `best_${weightsFile}`;

/** What a run has to know to go on, beside the weights and Adam's moments. Random numbers come from seed and step alone. */
export interface LoopState extends Position {
  /** Trained so far, and the time that took. */
  pairs: number;
  stepSeconds: number;
  /** Of the loss that is logged next. */
  sinceLog: { steps: number; loss: number };
  /** Which is the best, and for how long none was, follows from them. */
  evaluations: Evaluation[];
  /** With --mixed_precision=fp16. */
  lossScale?: LossScaleState;
}

/** What decides the result of a run: it must be the same where the run goes on. */
export interface RunIdentity {
  /** Options by flag, those left out that change nothing. */
  options: Record<string, unknown>;
  totalSteps: number;
  warmupSteps: number;
  trainPairs: number;
  trainSha256: string;
  evalPairs: number;
  evalSha256: string | null;
  /** Of --keep_dataset; missing in checkpoints that are older than it. */
  keepSha256?: string | null;
}

/** What the last bits of a sum depend on: it may change, with a warning. */
export interface Machine {
  device: string;
  threads: number;
  cpuKernels: string;
  torchVersion: string;
  /** Of the model's shape and --activation_checkpointing. */
  microBatchTokens: number;
}

export interface CheckpointContent {
  state: LoopState;
  identity: RunIdentity;
  machine: Machine;
  /** Writes optimizer.safetensors to a path and syncs it. */
  saveOptimizer: (file: string) => Promise<void>;
  /** Whether the weights in the output folder are the best and have to be kept beside the checkpoint's own. */
  withBest: boolean;
}

/** Writes what a checkpoint holds beside the adapter, but for the manifest. */
export async function stageState(folder: string, content: CheckpointContent, log: string): Promise<void> {
  const { state, identity, machine } = content;
  const { options, ...rest } = identity;
  const fields = {
    state: snakeCaseKeys(state),
    identity: { ...(snakeCaseKeys(rest) as object), options },
    machine: snakeCaseKeys(machine),
  };
  await content.saveOptimizer(path.join(folder, OPTIMIZER_FILE));
  await writeDurably(path.join(folder, STATE_FILE), `${JSON.stringify(fields, null, 2)}\n`);
  await writeDurably(path.join(folder, LOG_FILE), log);
}

/** A checkpoint that was read, but for its tensors. */
export interface Checkpoint {
  folder: string;
  state: LoopState;
  identity: RunIdentity;
  machine: Machine;
  record: AdapterRecord;
  weightsPath: string;
  /** May not be there. */
  bestWeightsPath: string;
  optimizerPath: string;
  /** train_log.jsonl up to and with the line of this checkpoint's own save. */
  log: string;
}

/** @throws CHECKPOINT_CORRUPT and what reading a file throws. */
export async function openCheckpoint({ folder, manifest }: FoundCheckpoint): Promise<Checkpoint> {
  const stateFile = path.join(folder, STATE_FILE);
  const json = await readJsonObject(stateFile, "CHECKPOINT_CORRUPT");
  const record = await readRecord(path.join(folder, RECORD_FILE));
  if (json === undefined || record === undefined) {
    const missing = json === undefined ? STATE_FILE : RECORD_FILE;
    throw new PeftTrainError("CHECKPOINT_CORRUPT", `${folder} has no ${missing}`);
  }
  // Their SHA-256 was right and so was the format: the fields are as stageState wrote them.
  const { options, ...rest } = json.identity as { options: Record<string, unknown> };
  const state = camelCaseKeys(json.state) as LoopState;
  const weightsFile = weightsFileFor(options.use_peft !== false);
  const logFile = path.join(folder, LOG_FILE);
  const log = await readFile(logFile, "utf8").catch((cause: unknown) => {
    throw fileError(logFile, cause);
  });
  const saved = { event: "saved", ...savedCheckpoint(folder, manifest) } satisfies SavedEvent;
  return {
    folder,
    state,
    identity: { ...(camelCaseKeys(rest) as Omit<RunIdentity, "options">), options },
    machine: camelCaseKeys(json.machine) as Machine,
    record,
    weightsPath: path.join(folder, weightsFile),
    bestWeightsPath: path.join(folder, bestWeightsFile(weightsFile)),
    optimizerPath: path.join(folder, OPTIMIZER_FILE),
    log: `${log}${jsonLine(saved)}\n`,
  };
}

/** What a run tells of a checkpoint that it has saved. */
export function savedCheckpoint(folder: string, manifest: Manifest): Omit<SavedEvent, "event"> {
  const name = path.basename(folder);
  const files = Object.entries(manifest.files).map(([file, { bytes }]) => ({
    name: path.join(name, file),
    bytes,
  }));
  return { path: folder, step: manifest.step, epoch: manifest.epochsEnded, files };
}
