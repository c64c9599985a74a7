import { mkdir } from "node:fs/promises";
import path from "node:path";
import { writeDurably } from "../../adapter/durable.js";
import { outputError } from "../../data/file-error.js";
import type { Pooling } from "../../native/types.js";

/** What a sentence-transformers folder says beside the encoder itself. */
export interface SentenceSettings {
  pooling: Pooling;
  /** Numbers in a vector. */
  dimension: number;
  /** Whether vectors are scaled to length 1. */
  normalize: boolean;
  /** Prefixes of the two kinds of text; that of queries is what plain `encode` puts before a text. */
  query: string;
  document: string;
  /** Tokens of a text. */
  maxLength: number;
  /** Folder of config.json, model.safetensors and the tokenizer, below the model's. Default: the model's own. */
  transformerPath?: string;
}

const MODULES = "sentence_transformers.models";

/**
 * Writes modules.json, the settings of its modules, and the prompts, with the names of classes and keys that every version
 * of sentence-transformers from 2.x on reads.
 * @param draft Folder that the encoder and its tokenizer are in, or below.
 */
export async function writeSentenceModules(draft: string, settings: SentenceSettings): Promise<void> {
  const { pooling, dimension, normalize, query, document, maxLength, transformerPath = "" } = settings;
  const modules = [
    { idx: 0, name: "0", path: transformerPath, type: `${MODULES}.Transformer` },
    { idx: 1, name: "1", path: "1_Pooling", type: `${MODULES}.Pooling` },
    ...(normalize ? [{ idx: 2, name: "2", path: "2_Normalize", type: `${MODULES}.Normalize` }] : []),
  ];
  for (const module of modules.slice(1)) {
    const folder = path.join(draft, module.path);
    await mkdir(folder, { recursive: true }).catch((cause) => {
      throw outputError(folder, cause);
    });
  }
  const prompts = query === "" && document === "" ? {} : { query, document };
  const files: Record<string, unknown> = {
    "modules.json": modules,
    "1_Pooling/config.json": poolingConfig(pooling, dimension),
    [path.join(transformerPath, "sentence_bert_config.json")]: {
      max_seq_length: maxLength,
      do_lower_case: false,
    },
    "config_sentence_transformers.json": {
      model_type: "SentenceTransformer",
      prompts,
      default_prompt_name: query === "" ? null : "query",
      similarity_fn_name: "cosine",
    },
  };
  for (const [name, content] of Object.entries(files)) {
    await writeDurably(path.join(draft, name), `${JSON.stringify(content, null, 2)}\n`);
  }
}

function poolingConfig(pooling: Pooling, dimension: number): object {
  return {
    word_embedding_dimension: dimension,
    pooling_mode_cls_token: pooling === "cls",
    pooling_mode_mean_tokens: pooling === "mean",
    pooling_mode_max_tokens: false,
    pooling_mode_mean_sqrt_len_tokens: false,
    pooling_mode_weightedmean_tokens: false,
    pooling_mode_lasttoken: false,
    include_prompt: true,
  };
}
