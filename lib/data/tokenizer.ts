import path from "node:path";
import type { Tokenizer as Library } from "tokenizers";
import { PeftTrainError } from "../errors.js";
import type { TokenBatch } from "../native/types.js";
import { SegmentEncoder } from "./segments.js";
import { TokenBuffer } from "./token-buffer.js";
import { readTokenizerFiles, type TokenizerFiles } from "./tokenizer-files.js";

const TEXTS_AT_A_TIME = 512;

/** The WordPiece tokenizer of a model folder; ids equal those of Python's `tokenizers` and `transformers`. */
export class Tokenizer {
  /** One more than the highest id: the rows that the embedding table needs. */
  readonly vocabSize: number;
  readonly clsId: number;
  readonly sepId: number;
  readonly segments: SegmentEncoder | undefined;

  private constructor(
    private readonly library: Library,
    files: TokenizerFiles,
    special: { clsId: number; sepId: number },
  ) {
    this.clsId = special.clsId;
    this.sepId = special.sepId;
    let highest = -1;
    for (const id of Object.values(library.getVocab(true))) if (id > highest) highest = id;
    this.vocabSize = highest + 1;
    if (files.segmentRules !== undefined) {
      this.segments = new SegmentEncoder((pieces) => this.encodeWhole(pieces), files.segmentRules);
    }
  }

  /**
   * Reads tokenizer.json, and tokenizer_config.json where there is one.
   * @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, MODEL_UNSUPPORTED (not WordPiece) or ADDON_MISSING.
   */
  static async load(folder: string): Promise<Tokenizer> {
    const files = await readTokenizerFiles(folder);
    const { Tokenizer: NativeTokenizer } = await importLibrary();
    let library: Library;
    try {
      library = NativeTokenizer.fromString(files.json);
    } catch (cause) {
      throw new PeftTrainError("MODEL_CORRUPT", `${files.path} is not a usable tokenizer: ${reason(cause)}`, {
        hint: "Copy tokenizer.json from the model's origin again.",
        cause,
      });
    }
    // Both are often saved as settings of somebody's batch; here each call says its own length and nothing is padded.
    library.disablePadding();
    library.disableTruncation();
    return new Tokenizer(library, files, await specialIds(library, files));
  }

  /**
   * `[CLS] ids [SEP]` of every text, cut to `maxLength` tokens in all as Hugging Face truncates, packed without padding.
   * A lone surrogate counts as U+FFFD. Time and memory for a text depend on the tokens kept, not on its length.
   * @throws USAGE when `maxLength` leaves no room for [CLS] and [SEP].
   */
  async encode(texts: readonly string[], maxLength: number): Promise<TokenBatch> {
    if (!Number.isInteger(maxLength) || maxLength < 2) {
      throw new PeftTrainError(
        "USAGE",
        `the maximum length must be a whole number of at least 2 tokens, room for [CLS] and [SEP]; got ${maxLength}`,
      );
    }
    const buffer = new TokenBuffer(32 * texts.length + 2, texts.length);
    for (let i = 0; i < texts.length; i += TEXTS_AT_A_TIME) {
      const some = texts.slice(i, i + TEXTS_AT_A_TIME);
      const encoded = await (this.segments?.encode(some, maxLength - 2) ?? this.encodeWhole(some));
      for (const ids of encoded) {
        buffer.push(this.clsId);
        buffer.pushAll(ids, maxLength - 2);
        buffer.push(this.sepId);
        buffer.endText();
      }
    }
    const { ids, offsets } = buffer.finish();
    return { ids, cuSeqlens: Int32Array.from(offsets) };
  }

  private async encodeWhole(texts: string[]): Promise<number[][]> {
    const encodings = await this.library.encodeBatch(texts, { addSpecialTokens: false });
    return encodings.map((encoding) => encoding.getIds());
  }
}

async function importLibrary(): Promise<typeof import("tokenizers")> {
  try {
    return await import("tokenizers");
  } catch (cause) {
    throw new PeftTrainError(
      "ADDON_MISSING",
      `the tokenizers package does not load on ${process.platform}-${process.arch}: ${reason(cause)}`,
      { hint: "Run `npm ci` again, so that npm installs it whole.", cause },
    );
  }
}

/** What the post-processor puts around an empty text must be [CLS] and [SEP], or the engine would pool the wrong token. */
async function specialIds(
  library: Library,
  files: TokenizerFiles,
): Promise<{ clsId: number; sepId: number }> {
  const ids = (await library.encode("")).getIds();
  const expected = [files.clsToken, files.sepToken];
  const found = ids.map((id) => library.idToToken(id) ?? `#${id}`);
  if (ids.length !== 2 || found[0] !== expected[0] || found[1] !== expected[1]) {
    throw new PeftTrainError(
      "MODEL_CORRUPT",
      `${files.path} must wrap a text as ${expected.join(" ... ")}; its post_processor gives ` +
        (found.length === 0 ? "no special token" : found.join(" ")),
      {
        hint: `Save the tokenizer again with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(${JSON.stringify(path.dirname(files.path))}).`,
      },
    );
  }
  return { clsId: ids[0] as number, sepId: ids[1] as number };
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
