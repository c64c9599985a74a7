/** What decides how a long stretch without white space may be shortened without changing its ids. */
export interface ShrinkRules {
  /** WordPiece gives one [UNK] for a longer word. */
  maxInputCharsPerWord: number;
  /** The normaliser removes combining accents. */
  stripsAccents: boolean;
  addedTokens: readonly string[];
}

/** Letters, digits and emoji outlive normalisation and, ideographs aside, never split a word. */
const WORD_CHARACTER = /^(?![\p{Ideographic}\p{P}])[\p{L}\p{Nd}\p{Extended_Pictographic}]$/u;
/** Marks and joiners may be removed, and never split a word. */
const WITHIN_WORD = /^[\p{M}\u200d]$/u;

type Kind = 1 | 2 | 3;
const IN_WORD: Kind = 1;
const LETTER: Kind = 2;
const OTHER: Kind = 3;
/** Kinds of the code points met so far, 0 for the rest: the regular expressions are too slow for every character. */
const kinds = new Uint8Array(0x110000);

function kindOf(code: number): Kind {
  const known = kinds[code] as Kind | 0;
  if (known !== 0) return known;
  const char = String.fromCodePoint(code);
  const kind = WORD_CHARACTER.test(char) ? LETTER : WITHIN_WORD.test(char) ? IN_WORD : OTHER;
  kinds[code] = kind;
  return kind;
}

/**
 * Shortens a stretch of text that holds no ASCII white space, keeping the first `limit` ids as they were:
 * - of a word that is sure to be longer than WordPiece's longest, only so much as makes it so (one [UNK] either way);
 * - of a run of characters that the normaliser removes, the first (it still parts what would be an added token);
 * - of a run of one character, as many as there can be ids.
 */
export class LongSegmentShrinker {
  private readonly wordsMayShrink: boolean;
  private readonly runsMayShrink: boolean;

  constructor(private readonly rules: ShrinkRules) {
    const tokens = rules.addedTokens.map((content) =>
      Array.from(content, (char) => char.codePointAt(0) as number),
    );
    // An added token must not reach into what is left out.
    this.wordsMayShrink = tokens.every(
      (codes) =>
        kindOf(codes[0] as number) === OTHER &&
        kindOf(codes.at(-1) as number) === OTHER &&
        codes.length <= rules.maxInputCharsPerWord,
    );
    this.runsMayShrink = tokens.every(
      (codes) => codes.some((code) => code !== codes[0]) && !codes.some((code) => this.isRemoved(code)),
    );
  }

  /** At most about `length` UTF-16 units of the shortened text; `complete` once nothing is left to read. */
  shrink(text: string, limit: number, length: number): { text: string; complete: boolean } {
    const longestWord = this.rules.maxInputCharsPerWord + 1;
    const longestRun = Math.max(longestWord, limit);
    const parts: string[] = [];
    let kept = 0;
    let sliceStart = 0;
    let letters = 0;
    let run = 0;
    let previous = -1;
    let previousRemoved = false;
    let i = 0;
    while (i < text.length && kept + (i - sliceStart) < length) {
      const code = text.codePointAt(i) as number;
      const size = code > 0xffff ? 2 : 1;
      run = code === previous ? run + 1 : 1;
      const removed = this.runsMayShrink && this.isRemoved(code);
      let skip = (this.runsMayShrink && run > longestRun) || (removed && previousRemoved);
      if (this.wordsMayShrink) {
        const kind = removed ? IN_WORD : kindOf(code);
        if (kind === LETTER) letters++;
        else if (kind === OTHER) letters = 0;
        skip ||= letters > longestWord;
      }
      previous = code;
      previousRemoved = removed;
      if (skip) {
        if (i > sliceStart) parts.push(text.slice(sliceStart, i));
        kept += i - sliceStart;
        sliceStart = i + size;
      }
      i += size;
    }
    parts.push(text.slice(sliceStart, i));
    return { text: parts.join(""), complete: i >= text.length };
  }

  /** Characters that BertNormalizer's clean_text, or its stripping of accents, removes in every version of Unicode. */
  private isRemoved(code: number): boolean {
    if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code === 0xad) return true;
    if ((code >= 0x200b && code <= 0x200f) || code === 0x2060 || code === 0xfeff || code === 0xfffd)
      return true;
    if (code >= 0xd800 && code < 0xe000) return true; // alone, so U+FFFD to the library
    return this.rules.stripsAccents && code >= 0x300 && code < 0x370;
  }
}
