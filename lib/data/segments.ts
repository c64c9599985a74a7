import { LongSegmentShrinker, type ShrinkRules } from "./long-segment.js";

/** Asks the tokenizer library for the ids of whole pieces of text, without [CLS] and [SEP]. */
export type EncodePieces = (pieces: string[]) => Promise<number[][]>;

/** What of a tokenizer.json decides where a text may be parted; added tokens are found in raw text before all else. */
export type SegmentRules = ShrinkRules;

/** Where the reading of one text stands. */
export interface TextCursor {
  readonly text: string;
  /** Ids so far, without [CLS] and [SEP]. */
  readonly ids: number[];
  readonly mayHoldAddedTokens: boolean;
  position: number;
  /** End of the segment that `position` is in, and whether the segment splits further. */
  segmentEnd: number;
  plain: boolean;
}

const SPACE = 1;
const ALNUM = 2;
const PUNCT = 3;
/** Kind of each ASCII code; 0 for control characters, which the normaliser removes and so joins what is around them. */
const KIND = Uint8Array.from({ length: 128 }, (_, code) => {
  const char = String.fromCharCode(code);
  if (/[ \t\n\r]/.test(char)) return SPACE;
  if (/[0-9A-Za-z]/.test(char)) return ALNUM;
  return /[!-~]/.test(char) ? PUNCT : 0;
});

/** Pieces longer than this are looked up once and not remembered. */
const LONGEST_REMEMBERED = 64;
const REMEMBERED_PIECES = 200_000;
/** Segments longer than this are cut before the library sees them. */
const LONG_SEGMENT = 4096;
const LONGEST_BATCH = 1024;
/**
 * Ids of texts under a BertNormalizer and a BertPreTokenizer, from the ids of their pieces.
 *
 * Both work within the stretches between white space, and ASCII letters, digits and punctuation split further in a
 * way that needs no Unicode tables; so the ids of a text are those of its pieces in a row, and each distinct piece
 * goes to the library once. That is an order of magnitude faster than whole texts, and a text is read no further than
 * the tokens that are kept.
 */
export class SegmentEncoder {
  private readonly remembered = new Map<string, number[]>();
  private readonly addedTokens: RegExp | undefined;
  private readonly shrinker: LongSegmentShrinker;
  private readonly margin: number;

  constructor(
    private readonly encodePieces: EncodePieces,
    private readonly rules: SegmentRules,
  ) {
    const contents = rules.addedTokens;
    if (contents.length > 0) this.addedTokens = new RegExp(contents.map(escapeRegExp).join("|"), "u");
    this.shrinker = new LongSegmentShrinker(rules);
    this.margin = rules.maxInputCharsPerWord + Math.max(0, ...contents.map((content) => content.length));
  }

  /** First `limit` ids of each text. */
  async encode(texts: readonly string[], limit: number): Promise<number[][]> {
    if (limit === 0) return texts.map(() => []);
    const cursors = texts.map((text) => this.open(text));
    const once = new Map<string, number[]>();
    let open = cursors;
    while (open.length > 0) {
      const missing = new Set<string>();
      open = open.filter((cursor) => !this.advance(cursor, limit, once, missing));
      if (missing.size > 0) await this.learn([...missing], limit, once);
    }
    return cursors.map((cursor) => cursor.ids);
  }

  private open(text: string): TextCursor {
    const mayHoldAddedTokens = this.addedTokens?.test(text) ?? false;
    return { text, ids: [], mayHoldAddedTokens, position: 0, segmentEnd: 0, plain: false };
  }

  /** Reads on while pieces are known; true once the text has ended or has given `limit` ids. */
  private advance(
    cursor: TextCursor,
    limit: number,
    once: Map<string, number[]>,
    missing: Set<string>,
  ): boolean {
    let { position, segmentEnd, plain } = cursor;
    let ahead = 0;
    for (;;) {
      if (position === segmentEnd) {
        position = skipSpace(cursor.text, position);
        if (position === cursor.text.length) return ahead === 0;
        segmentEnd = endOfSegment(cursor.text, position);
        plain = this.isPlain(cursor, position, segmentEnd);
      }
      const end = plain ? endOfWord(cursor.text, position, segmentEnd) : segmentEnd;
      // Past the longest word only [UNK] is possible, so one character more tells as much as ten million.
      const keyEnd = plain ? Math.min(end, position + this.rules.maxInputCharsPerWord + 1) : end;
      const key = cursor.text.slice(position, keyEnd);
      const ids = this.remembered.get(key) ?? once.get(key);
      if (ids === undefined) missing.add(key);
      position = end;
      if (ids === undefined || ahead > 0) {
        // Look a little ahead, so that one question to the library brings everything the text is likely to need.
        if (++ahead >= limit) return false;
        continue;
      }
      for (const id of ids) {
        if (cursor.ids.length === limit) return true;
        cursor.ids.push(id);
      }
      if (cursor.ids.length === limit) return true;
      cursor.position = position;
      cursor.segmentEnd = segmentEnd;
      cursor.plain = plain;
    }
  }

  private isPlain(cursor: TextCursor, start: number, end: number): boolean {
    for (let i = start; i < end; i++) {
      const code = cursor.text.charCodeAt(i);
      if (code >= 128 || KIND[code] === 0) return false;
    }
    return !(cursor.mayHoldAddedTokens && this.addedTokens?.test(cursor.text.slice(start, end)));
  }

  private async learn(pieces: string[], limit: number, once: Map<string, number[]>): Promise<void> {
    const short = pieces.filter((piece) => piece.length <= LONG_SEGMENT);
    for (let i = 0; i < short.length; i += LONGEST_BATCH) {
      const batch = short.slice(i, i + LONGEST_BATCH);
      const encoded = await this.encodePieces(batch);
      for (const [j, piece] of batch.entries()) {
        const ids = encoded[j] as number[];
        if (piece.length > LONGEST_REMEMBERED) once.set(piece, ids.slice(0, limit));
        else this.remember(piece, ids);
      }
    }
    for (const piece of pieces) {
      if (piece.length > LONG_SEGMENT) once.set(piece, await this.encodeLong(piece, limit));
    }
  }

  private remember(piece: string, ids: number[]): void {
    if (this.remembered.size >= REMEMBERED_PIECES) this.remembered.clear();
    // A slice keeps the whole text it came from alive; a copy does not.
    this.remembered.set(Buffer.from(piece, "utf16le").toString("utf16le"), ids);
  }

  /**
   * First `limit` ids of a segment of any length. Reading a prefix can only change the ids of its last word or of an
   * added token that it cuts, so once it gives `margin` ids more than are kept, those are the whole segment's.
   */
  private async encodeLong(segment: string, limit: number): Promise<number[]> {
    for (let length = 8 * (limit + this.margin); ; length *= 2) {
      const { text, complete } = this.shrinker.shrink(segment, limit + this.margin, length);
      const [ids] = (await this.encodePieces([text])) as [number[]];
      if (complete || ids.length >= limit + this.margin) return ids.slice(0, limit);
    }
  }
}

function skipSpace(text: string, from: number): number {
  let i = from;
  while (i < text.length && KIND[text.charCodeAt(i)] === SPACE) i++;
  return i;
}

function endOfSegment(text: string, from: number): number {
  let i = from;
  while (i < text.length && KIND[text.charCodeAt(i)] !== SPACE) i++;
  return i;
}

/** A run of letters and digits, or one mark of punctuation. */
function endOfWord(text: string, from: number, segmentEnd: number): number {
  if (KIND[text.charCodeAt(from)] !== ALNUM) return from + 1;
  let i = from;
  while (i < segmentEnd && KIND[text.charCodeAt(i)] === ALNUM) i++;
  return i;
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}
