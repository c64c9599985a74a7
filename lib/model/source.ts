import { stat } from "node:fs/promises";
import path from "node:path";
import { fileError } from "../data/file-error.js";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { parseRepository, type Repository, repositoryText } from "../hub/repository.js";
import { Snapshot } from "../hub/snapshot.js";
import { parseModelConfig } from "./config.js";
import { readJsonObject } from "./json-file.js";
import { readSentenceModules } from "./pooling.js";
import { ORIGIN_FILE } from "./quantized-from.js";

export interface HubOrigin {
  /** Branch, tag or commit that was asked for; null for main. */
  revision: string | null;
  commit: string;
}

/** Where a model's files are. */
export interface ModelSource {
  folder: string;
  /** As adapter_config.json will say it. */
  name: string;
  /** Of a model of the Hub. */
  hub: HubOrigin | undefined;
}

const WEIGHTS = "model.safetensors";
/** All that is read but the weights; never a pickle, and nothing for other frameworks. */
const DESCRIPTION: RegExp = new RegExp(
  `^(0_[A-Za-z]+/)?(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|modules|sentence_bert_config|config_sentence_transformers)\\.json$|^(0_[A-Za-z]+/)?(vocab\\.txt|${ORIGIN_FILE.replace(".", "\\.")})$|^\\d+_[A-Za-z]+/config\\.json$|^(LICENSE|NOTICE)[\\w.]*$`,
);
/** Without them a model is one of plain mean pooling, so not to have asked for them is not the same. */
const POOLING_FILES = ["modules.json", "1_Pooling/config.json"];

/**
 * Finds a model: a folder, or what the Hub has under that name, which is brought into the cache.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_UNSUPPORTED; HUB_NOT_FOUND, HUB_ACCESS, DOWNLOAD_FAILED, ABORTED
 */
export async function findModel(name: string, access: HubAccess): Promise<ModelSource> {
  const repository = await missingFolder(name, "model", "config.json and model.safetensors");
  if (repository === undefined) return { folder: path.resolve(name), name, hub: undefined };
  const snapshot = await openOnHub(name, repository, access);
  await snapshot.fetch(
    snapshot.names.filter((file) => DESCRIPTION.test(file)),
    repository.id,
  );
  const { transformerPath } = await readSentenceModules(snapshot.path);
  const inFolder = (file: string): string => path.posix.join(transformerPath, file);
  // What does not run is refused before its weights are downloaded.
  const config = await readJsonObject(path.join(snapshot.path, inFolder("config.json")));
  if (config !== undefined) parseModelConfig(config, `${repository.id}/${inFolder("config.json")}`);
  requireWeights(repository, snapshot, inFolder(WEIGHTS));
  await warnOfUnknownPooling(repository, snapshot, access);
  await snapshot.fetch([inFolder(WEIGHTS)], `${repository.id}/${inFolder(WEIGHTS)}`);
  return {
    folder: snapshot.path,
    name: repository.id,
    hub: { revision: repository.revision === "main" ? null : repository.revision, commit: snapshot.commit },
  };
}

/** Whether `name` is a name on the Hub and no folder here. */
export async function isOnHub(name: string): Promise<boolean> {
  return parseRepository(name) !== undefined && (await stat(name).catch(() => undefined)) === undefined;
}

/**
 * The repository that `name` may be where there is no such folder.
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE
 */
export async function missingFolder(
  name: string,
  kind: "model" | "adapter",
  files: string,
): Promise<Repository | undefined> {
  try {
    if ((await stat(name)).isDirectory()) return undefined;
  } catch (cause) {
    const repository = parseRepository(name);
    const { code } = cause as NodeJS.ErrnoException;
    if (repository === undefined || (code !== "ENOENT" && code !== "ENOTDIR"))
      throw fileError(name, cause, "folder");
    return repository;
  }
  throw new PeftTrainError(
    "FILE_UNREADABLE",
    `expected a folder of ${kind === "model" ? "a model" : "an adapter"}, ${name} is a file`,
    {
      hint: `Give the folder that holds ${files}.`,
    },
  );
}

/** Opens a repository; a name that is nowhere is told as one that is no folder either. */
export async function openOnHub(name: string, repository: Repository, access: HubAccess): Promise<Snapshot> {
  try {
    return await Snapshot.open(repository, access);
  } catch (cause) {
    if (!(cause instanceof PeftTrainError) || cause.code === "ABORTED") throw cause;
    const hint = cause.hint === undefined ? {} : { hint: cause.hint };
    throw new PeftTrainError(cause.code, `there is no folder ${name}, and ${cause.message}`, {
      ...hint,
      cause,
    });
  }
}

function requireWeights(repository: Repository, { names }: Snapshot, wanted: string): void {
  if (names.includes(wanted)) return;
  const text = repositoryText(repository);
  if (names.includes(`${wanted}.index.json`)) {
    throw new PeftTrainError("MODEL_UNSUPPORTED", `the weights of ${text} are split into several files`, {
      hint: `Save them as one: AutoModel.from_pretrained(${JSON.stringify(repository.id)}).save_pretrained("model", max_shard_size="100GB").`,
    });
  }
  const pickled = names.find((file) => /(^|\/)pytorch_model.*\.bin$|\.ckpt$/.test(file));
  throw new PeftTrainError(
    "MODEL_UNSUPPORTED",
    pickled === undefined
      ? `${text} has no ${wanted}`
      : `${text} has ${pickled} and no ${wanted}; pickled weights can run code and are not downloaded`,
    {
      hint: `Convert them with Python: AutoModel.from_pretrained(${JSON.stringify(repository.id)}).save_pretrained("model"), then give that folder.`,
    },
  );
}

async function warnOfUnknownPooling(
  { id }: Repository,
  snapshot: Snapshot,
  { onNote }: HubAccess,
): Promise<void> {
  const unknown: string[] = [];
  for (const file of POOLING_FILES) if (!(await snapshot.isKnown(file))) unknown.push(file);
  // A modules.json names whatever else there is.
  if (unknown.length === 0 || snapshot.names.includes("modules.json")) return;
  onNote?.(
    `the cache does not say whether ${id} has ${unknown.join(" and ")}; mean pooling is taken unless --pooling says otherwise`,
  );
}
