import { cp, mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { outputError } from "../data/file-error.js";
import type { ModelFolder } from "./folder.js";

/** What says how texts become tokens. */
export const TOKENIZER_FILES: readonly string[] = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "vocab.txt",
];
const ROOT_FILES = ["modules.json", "config_sentence_transformers.json"];
const TRANSFORMER_FILES = [...TOKENIZER_FILES, "added_tokens.json", "sentence_bert_config.json"];

/**
 * Everything beside the weights that says how texts become vectors, and what one may do with it.
 * @param target Folder for what belongs to the tokenizer, in `draft`.
 * @param modules Whether modules.json and its modules come along.
 */
export async function copyDescription(
  model: ModelFolder,
  draft: string,
  target: string,
  modules = true,
): Promise<void> {
  try {
    await mkdir(target, { recursive: true });
    for (const entry of await readdir(model.root, { withFileTypes: true })) {
      const isModule =
        entry.isDirectory() && /^\d+_/.test(entry.name) && path.join(model.root, entry.name) !== model.path;
      const isRoot = ROOT_FILES.includes(entry.name);
      const isLicence = /^(LICENSE|NOTICE)/i.test(entry.name) && !entry.isDirectory();
      if (isLicence || (modules && (isModule || (isRoot && !entry.isDirectory())))) {
        await cp(path.join(model.root, entry.name), path.join(draft, entry.name), {
          recursive: true,
          dereference: true, // the files of a model of the Hub are links
        });
      }
    }
    const names = await readdir(model.path);
    const wanted = modules ? TRANSFORMER_FILES : [...TOKENIZER_FILES, "added_tokens.json"];
    for (const name of wanted.filter((file) => names.includes(file))) {
      await cp(path.join(model.path, name), path.join(target, name), { dereference: true });
    }
  } catch (cause) {
    throw outputError(draft, cause);
  }
}
