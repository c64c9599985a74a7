import { readFile } from "node:fs/promises";
import path from "node:path";
import { PeftTrainError } from "../errors.js";
import { fileError } from "./file-error.js";
import type { SegmentRules } from "./segments.js";

/** What a model folder says about its tokenizer. */
export interface TokenizerFiles {
  /** Path of tokenizer.json. */
  path: string;
  /** Text of tokenizer.json, with the normaliser options of tokenizer_config.json put in. */
  json: string;
  clsToken: string;
  sepToken: string;
  normalization: Normalization;
  /** Set when texts may be encoded piece by piece. */
  segmentRules: SegmentRules | undefined;
}

/**
 * How the BERT normaliser changes a text, under the names of tokenizer_config.json: what holds after both files have had
 * their say. Null for another normaliser, which tokenizer.json alone describes.
 */
export interface Normalization {
  do_lower_case: boolean | null;
  strip_accents: boolean | null;
  tokenize_chinese_chars: boolean | null;
}

type Json = Record<string, unknown>;

/** Reads and checks tokenizer.json and tokenizer_config.json of a model folder. */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const file = path.join(folder, "tokenizer.json");
  const json = await readJson(file);
  if (json === undefined) {
    throw new PeftTrainError("MODEL_CORRUPT", `expected a tokenizer at ${file}, found no such file`, {
      hint: "A model folder holds config.json, model.safetensors and tokenizer.json, as save_pretrained writes them.",
    });
  }
  const model = object(json.model);
  if (model === undefined) {
    throw new PeftTrainError("MODEL_CORRUPT", `${file} has no "model", so it is not a tokenizer`, {
      hint: "Copy tokenizer.json from the model's origin again.",
    });
  }
  if (model.type !== "WordPiece") {
    throw new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `expected a WordPiece tokenizer in ${file}, found ${JSON.stringify(model.type ?? null)}`,
      {
        hint: "BERT-family encoders (E5, GTE, all-MiniLM) have WordPiece; XLM-R and RoBERTa models do not run here.",
      },
    );
  }
  const config = (await readJson(path.join(folder, "tokenizer_config.json"))) ?? {};
  if (config.truncation_side === "left" || object(json.truncation)?.direction === "Left") {
    throw new PeftTrainError(
      "MODEL_UNSUPPORTED",
      `${folder} truncates texts on the left; only the right is supported`,
    );
  }
  applyNormalizerOptions(json, config);
  return {
    path: file,
    json: JSON.stringify(json),
    clsToken: tokenText(config.cls_token) ?? "[CLS]",
    sepToken: tokenText(config.sep_token) ?? "[SEP]",
    normalization: normalization(json),
    segmentRules: segmentRules(json, model),
  };
}

/** A JSON object, or undefined where there is no such file. */
async function readJson(file: string): Promise<Json | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw fileError(file, cause);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const pointer = text.startsWith("version https://git-lfs");
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      pointer
        ? `${file} is a Git LFS pointer, not the file itself`
        : `${file} is not valid JSON: ${(cause as Error).message}`,
      {
        hint: pointer
          ? "Run `git lfs pull` in the model's folder."
          : "Copy it from the model's origin again.",
        cause,
      },
    );
  }
  const result = object(value);
  if (result === undefined) throw new PeftTrainError("MODEL_CORRUPT", `expected a JSON object in ${file}`);
  return result;
}

/**
 * transformers' BertTokenizer builds its normaliser from tokenizer_config.json, whatever tokenizer.json says
 * (tokenization_bert.py); its generic classes do not.
 */
function applyNormalizerOptions(json: Json, config: Json): void {
  const normalizer = object(json.normalizer);
  const generic = ["PreTrainedTokenizerFast", "TokenizersBackend"].includes(String(config.tokenizer_class));
  if (normalizer?.type !== "BertNormalizer" || generic) return;
  if (typeof config.do_lower_case === "boolean") normalizer.lowercase = config.do_lower_case;
  if (typeof config.tokenize_chinese_chars === "boolean") {
    normalizer.handle_chinese_chars = config.tokenize_chinese_chars;
  }
  if (config.strip_accents === null || typeof config.strip_accents === "boolean") {
    normalizer.strip_accents = config.strip_accents;
  }
}

function normalization(json: Json): Normalization {
  const normalizer = object(json.normalizer);
  if (normalizer?.type !== "BertNormalizer") {
    return { do_lower_case: null, strip_accents: null, tokenize_chinese_chars: null };
  }
  return {
    do_lower_case: normalizer.lowercase === true,
    strip_accents: stripsAccents(normalizer),
    tokenize_chinese_chars: normalizer.handle_chinese_chars === true,
  };
}

/** Where nothing is said of accents they go with the capitals. */
function stripsAccents(normalizer: Json): boolean {
  return (normalizer.strip_accents ?? normalizer.lowercase) === true;
}

/** Undefined where a text is more than its pieces: another normaliser, or added tokens that white space does not end. */
function segmentRules(json: Json, model: Json): SegmentRules | undefined {
  const normalizer = object(json.normalizer);
  if (normalizer?.type !== "BertNormalizer" || normalizer.clean_text !== true) return undefined;
  if (object(json.pre_tokenizer)?.type !== "BertPreTokenizer") return undefined;
  const addedTokens: string[] = [];
  for (const entry of Array.isArray(json.added_tokens) ? json.added_tokens : []) {
    const token = object(entry);
    if (token === undefined || typeof token.content !== "string" || token.content === "") return undefined;
    if (token.normalized !== false || /\s/u.test(token.content)) return undefined;
    addedTokens.push(token.content);
  }
  const longest = model.max_input_chars_per_word ?? 100;
  if (typeof longest !== "number") return undefined;
  return { maxInputCharsPerWord: longest, stripsAccents: stripsAccents(normalizer), addedTokens };
}

/** Special tokens are written as plain strings or as `{"content": ...}`. */
function tokenText(value: unknown): string | undefined {
  const text = typeof value === "string" ? value : object(value)?.content;
  return typeof text === "string" ? text : undefined;
}

function object(value: unknown): Json | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}
