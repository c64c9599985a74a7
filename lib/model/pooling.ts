import path from "node:path";
import { PeftTrainError } from "../errors.js";
import type { Pooling } from "../native/types.js";
import { isObject, type JsonObject, readJson, readJsonObject } from "./json-file.js";

/** What a sentence-transformers folder says about its modules. */
export interface SentenceModules {
  /** Folder of the Transformer module, below the model's folder; empty for the folder itself. */
  transformerPath: string;
  pooling: Pooling;
  /** Whether a Normalize module follows. */
  normalize: boolean;
}

/** What sentence-transformers takes where there is no modules.json. */
const PLAIN_MODEL: SentenceModules = { transformerPath: "", pooling: "mean", normalize: false };

/** Pooling keys of sentence-transformers up to 5.x and what 6.x calls the same. */
const LEGACY_MODES: [key: string, mode: string][] = [
  ["pooling_mode_cls_token", "cls"],
  ["pooling_mode_max_tokens", "max"],
  ["pooling_mode_mean_tokens", "mean"],
  ["pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"],
  ["pooling_mode_weightedmean_tokens", "weightedmean"],
  ["pooling_mode_lasttoken", "lasttoken"],
];

/**
 * Reads modules.json and the pooling module's config.json. A folder with neither gets mean pooling, as
 * sentence-transformers gives it.
 * @throws MODEL_UNSUPPORTED for modules and pooling modes that the engine has not, MODEL_CORRUPT.
 */
export async function readSentenceModules(folder: string): Promise<SentenceModules> {
  const file = path.join(folder, "modules.json");
  const modules = await readModules(file);
  if (modules === undefined) {
    const config = await readJsonObject(path.join(folder, "1_Pooling", "config.json"));
    if (config === undefined) return PLAIN_MODEL;
    return { ...PLAIN_MODEL, pooling: parsePooling(config, path.join(folder, "1_Pooling", "config.json")) };
  }
  const found: SentenceModules = { ...PLAIN_MODEL };
  for (const [i, { type, path: modulePath }] of modules.entries()) {
    // sentence_transformers.models.Pooling, or sentence_transformers.sentence_transformer.modules.pooling.Pooling.
    const name = type.slice(type.lastIndexOf(".") + 1);
    if (name === "Transformer" && i === 0) {
      found.transformerPath = modulePath;
    } else if (name === "Pooling" && i === 1) {
      const configFile = path.join(folder, modulePath, "config.json");
      const config = await readJsonObject(configFile);
      if (config === undefined) {
        throw new PeftTrainError("MODEL_CORRUPT", `${file} names ${configFile}, found no such file`);
      }
      found.pooling = parsePooling(config, configFile);
    } else if (name === "Normalize" && i === 2) {
      found.normalize = true;
    } else {
      throw new PeftTrainError("MODEL_UNSUPPORTED", `${file}: module ${i} is ${type}`, {
        hint: "Supported are a Transformer, then Pooling, then optionally Normalize.",
      });
    }
  }
  return found;
}

/** Pooling mode of a `1_Pooling/config.json`, in the keys of sentence-transformers 6 or of earlier versions. */
export function parsePooling(config: JsonObject, file: string): Pooling {
  const modes = activeModes(config);
  const mode = modes.length === 0 ? "mean" : modes.length === 1 ? modes[0] : undefined;
  if (mode !== "mean" && mode !== "cls") {
    throw new PeftTrainError("MODEL_UNSUPPORTED", `${file}: pooling mode ${modes.join(" + ")}`, {
      hint: "Supported are mean and cls pooling.",
    });
  }
  if (config.include_prompt === false) {
    throw new PeftTrainError("MODEL_UNSUPPORTED", `${file}: include_prompt is false`, {
      hint: "Prefixes count as part of the text here; models that leave them out of pooling are not supported.",
    });
  }
  return mode;
}

function activeModes(config: JsonObject): string[] {
  if (config.pooling_mode !== undefined) {
    return (Array.isArray(config.pooling_mode) ? config.pooling_mode : [config.pooling_mode]).map(String);
  }
  return LEGACY_MODES.filter(([key]) => config[key] === true).map(([, mode]) => mode);
}

async function readModules(file: string): Promise<{ type: string; path: string }[] | undefined> {
  const value = await readJson(file);
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw new PeftTrainError("MODEL_CORRUPT", `expected a JSON list in ${file}`);
  return value.map((entry: unknown) => {
    if (!isObject(entry) || typeof entry.type !== "string" || typeof entry.path !== "string") {
      throw new PeftTrainError("MODEL_CORRUPT", `${file}: expected "type" and "path" in every entry`);
    }
    if (path.isAbsolute(entry.path) || path.normalize(entry.path).startsWith("..")) {
      throw new PeftTrainError("MODEL_CORRUPT", `${file}: the path ${entry.path} leads out of the folder`);
    }
    return { type: entry.type, path: entry.path };
  });
}
