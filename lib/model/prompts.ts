import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { isObject, readJsonObject } from "./json-file.js";

/** What sentence-transformers puts before texts of a model, unless it is told otherwise. */
export interface ModelPrompts {
  question1Prefix: string;
  question2Prefix: string;
}

/**
 * The default prompt of config_sentence_transformers.json. Where that is the one of queries and there is one of documents, as `export` writes
 * them, it goes before the second text of a pair; undefined where there is no default.
 * @throws MODEL_CORRUPT for a default that is none of the prompts, which sentence-transformers refuses too.
 */
export async function readPrompts(root: string): Promise<ModelPrompts | undefined> {
  const file = path.join(root, "config_sentence_transformers.json");
  const { prompts, default_prompt_name: name } = (await readJsonObject(file)) ?? {};
  if (name === undefined || name === null) return undefined;
  const known = isObject(prompts) ? prompts : {};
  const prompt = typeof name === "string" && Object.hasOwn(known, name) ? known[name] : undefined;
  if (typeof prompt !== "string") {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${file}: default_prompt_name is ${JSON.stringify(name)}, and prompts has ${Object.keys(known).join(", ") || "none"}`,
    );
  }
  const document = name === "query" ? known.document : undefined;
  return { question1Prefix: prompt, question2Prefix: typeof document === "string" ? document : prompt };
}
