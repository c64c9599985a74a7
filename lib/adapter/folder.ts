import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { fileError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { TOKENIZER_FILES } from "../model/description.js";
import { fingerprint } from "../model/fingerprint.js";
import type { ModelFolder } from "../model/folder.js";
import { readJsonObject } from "../model/json-file.js";
import { readSafetensorsHeader } from "../model/safetensors-header.js";
import { missingFolder, openOnHub } from "../model/source.js";
import type { AdapterSpec, WeightStorage } from "../native/types.js";
import { parseAdapterConfig } from "./config.js";
import { writeDurably } from "./durable.js";
import { requireLoftqBase } from "./loftq.js";
import type { LoraConfig } from "./lora-config.js";
import { type AdapterRecord, formatRecord, RECORD_FILE, readRecord, requireSameBase } from "./record.js";
import { resolveTargets } from "./targets.js";

export const CONFIG_FILE = "adapter_config.json";
export const WEIGHTS_FILE = "adapter_model.safetensors";
/** Copied from the base model, so that the folder says how its texts were read. */
export { TOKENIZER_FILES };
/** What a training run leaves beside its adapter, from its first save on. */
export const LOG_FILE = "train_log.jsonl";
/** TensorBoard's event files of a run. */
export const EVENTS_FOLDER = "runs";
/** Every option of the run; not config.json, for which transformers takes such a folder for a whole model. */
export const RUN_CONFIG_FILE = "train_config.json";
/** Charts, metrics and mistakes of a run as one page. */
export const REPORT_FILE = "report.html";
/** Folder of a checkpoint inside an output folder. */
export const CHECKPOINT: RegExp = /^(epoch|step)_\d+$/;

export interface AdapterContent {
  /** Writes adapter_model.safetensors to a path and syncs it. */
  saveWeights: (file: string) => Promise<void>;
  /** Text of adapter_config.json. */
  config: string;
  record: AdapterRecord;
  model: ModelFolder;
}

/**
 * Writes the files of an adapter into a folder that nobody reads yet, each synced.
 * @returns Their names in the order in which they must become visible: adapter_config.json last, for a folder without
 * it is an adapter neither to PEFT nor to `openAdapterFolder`.
 */
export async function stageAdapter(folder: string, content: AdapterContent): Promise<string[]> {
  const names: string[] = [];
  for (const name of TOKENIZER_FILES) {
    const source = path.join(content.model.path, name);
    let bytes: Uint8Array;
    try {
      bytes = await readFile(source);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ENOENT" && name !== "tokenizer.json") continue;
      throw fileError(source, cause);
    }
    await writeDurably(path.join(folder, name), bytes);
    names.push(name);
  }
  await writeDurably(path.join(folder, CONFIG_FILE), content.config);
  await content.saveWeights(path.join(folder, WEIGHTS_FILE));
  await writeDurably(path.join(folder, RECORD_FILE), formatRecord(content.record));
  return [...names, WEIGHTS_FILE, RECORD_FILE, CONFIG_FILE];
}

/** An adapter folder, checked against its base model but not loaded. */
export interface AdapterFolder {
  path: string;
  weightsPath: string;
  lora: LoraConfig;
  spec: AdapterSpec;
  /** Undefined for a folder that PEFT wrote. */
  record: AdapterRecord | undefined;
  warnings: string[];
}

/**
 * Opens an adapter folder of ours or of PEFT, in either layout of tensor names, for `model`. What is no folder is looked
 * for on the Hugging Face Hub.
 * @param held How the model's weights are to be held; by default as its file has them.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, ADAPTER_UNSUPPORTED or ADAPTER_MISMATCH; HUB_NOT_FOUND,
 * HUB_ACCESS, DOWNLOAD_FAILED or ABORTED for a name on the Hub.
 */
export async function openAdapterFolder(
  name: string,
  model: ModelFolder,
  hub: HubAccess = {},
  held: WeightStorage | undefined = model.quantized,
): Promise<AdapterFolder> {
  const folder = await findAdapter(name, hub);
  const configPath = path.join(folder, CONFIG_FILE);
  const json = await readJsonObject(configPath);
  if (json === undefined) throw await missingConfig(folder);
  const { lora, loftq, unknownKeys } = parseAdapterConfig(json, configPath);
  const weightsPath = path.join(folder, WEIGHTS_FILE);
  await requireWeights(folder);
  const tensors = await readSafetensorsHeader(weightsPath);
  const record = await readRecord(path.join(folder, RECORD_FILE));
  if (record !== undefined) requireSameBase(record, await fingerprint(model), folder, model.name);
  // The article's script wrapped BertModel once more, so names in its patterns start with `model.` too.
  const wrapped =
    tensors.size > 0 && [...tensors.keys()].every((key) => key.startsWith("base_model.model.model."));
  const spec = resolveStored(lora, model, wrapped ? "model." : "", configPath);
  if (loftq !== undefined) await requireLoftqBase(loftq, spec.modules, model, held, configPath);
  const warnings = unknownKeys.map((key) => `${configPath}: ${key} is unknown and ignored`);
  return { path: path.resolve(folder), weightsPath: path.resolve(weightsPath), lora, spec, record, warnings };
}

function resolveStored(lora: LoraConfig, model: ModelFolder, prefix: string, file: string): AdapterSpec {
  try {
    return resolveTargets(lora, model, prefix);
  } catch (cause) {
    if (!(cause instanceof PeftTrainError) || cause.code !== "USAGE") throw cause;
    throw new PeftTrainError("ADAPTER_MISMATCH", `${file}: ${cause.message}`, {
      hint: `The adapter may be for another base model than ${model.name}.`,
      cause,
    });
  }
}

/** The adapter's folder; a name on the Hub is `owner/name`, for a lone word is a folder that is not there. */
export async function findAdapter(name: string, access: HubAccess): Promise<string> {
  const repository = await missingFolder(name, "adapter", `${CONFIG_FILE} and ${WEIGHTS_FILE}`);
  if (repository === undefined) return name;
  if (!name.includes("/")) throw fileError(name, { code: "ENOENT" }, "folder");
  const snapshot = await openOnHub(name, repository, access);
  const wanted = [CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE].filter((file) => snapshot.names.includes(file));
  if (!snapshot.names.includes("adapter_model.bin") || snapshot.names.includes(WEIGHTS_FILE)) {
    await snapshot.fetch(wanted, repository.id);
    return snapshot.path;
  }
  throw pickledWeights(repository.id);
}

/** A folder of ours loses adapter_config.json first and gets it last when it is saved again. */
export async function missingConfig(folder: string): Promise<PeftTrainError> {
  const names = await readdir(folder);
  if (!names.includes(RECORD_FILE) && !names.includes(LOG_FILE)) {
    return new PeftTrainError(
      "FILE_NOT_FOUND",
      `expected an adapter folder, ${folder} has no ${CONFIG_FILE}`,
      { hint: "Give the folder that holds adapter_config.json and adapter_model.safetensors." },
    );
  }
  if (names.includes("config.json") && names.includes("model.safetensors")) {
    return new PeftTrainError(
      "FILE_NOT_FOUND",
      `expected an adapter folder, ${folder} is a whole model, trained with --no-use_peft`,
      { hint: "Give it as --model_name_or_path, without --adapter." },
    );
  }
  const checkpoint = names.filter((name) => CHECKPOINT.test(name)).at(-1);
  const other =
    checkpoint === undefined
      ? ""
      : `give a checkpoint of that run, such as ${path.join(folder, checkpoint)}, or `;
  return new PeftTrainError(
    "FILE_NOT_FOUND",
    `${folder} has no ${CONFIG_FILE}: a run was killed before or while it saved an adapter there`,
    { hint: `Do not put one there by hand; ${other}train again with --overwrite_output_dir.` },
  );
}

export async function requireWeights(folder: string): Promise<void> {
  const names = await readdir(folder);
  if (names.includes(WEIGHTS_FILE)) return;
  if (names.includes("adapter_model.bin")) throw pickledWeights(folder);
  throw new PeftTrainError("FILE_NOT_FOUND", `expected ${WEIGHTS_FILE} in ${folder}, found no such file`, {
    hint: "Copy it from the adapter's origin again.",
  });
}

function pickledWeights(place: string): PeftTrainError {
  return new PeftTrainError(
    "ADAPTER_UNSUPPORTED",
    `${place} has adapter_model.bin and no ${WEIGHTS_FILE}; pickled weights can run code and are not read`,
    { hint: "Convert it with PEFT: PeftModel.from_pretrained(...).save_pretrained(other)." },
  );
}
