import { readFileSync } from "node:fs";
import { join } from "node:path";

// Texts for measurements of speed alone, without chance: the same everywhere.

/** Words of the vocabulary, so that a word is a token. */
export function wholeWords(model) {
  const { vocab } = JSON.parse(readFileSync(join(model, "tokenizer.json"), "utf8")).model;
  const words = Object.keys(vocab).filter((word) => /^[a-z]{3,}$/.test(word));
  if (words.length === 0) throw new Error(`${model}/tokenizer.json has no whole words`);
  return words;
}

/** Words that differ from text to text; 7919 is a prime. */
export function generatedText(words, seed, count) {
  return Array.from({ length: count }, (_, i) => words[(seed * 31 + i * 7919) % words.length]).join(" ");
}

/** As long as Quora's: 8 to 39 words, with the prefix and the two special tokens 25 tokens in the mean. */
export function generatedQuestion(words, seed) {
  const draw = ((seed * 2654435761) % 2 ** 32) / 2 ** 32;
  return generatedText(words, seed, 8 + Math.floor(32 * draw ** 1.5));
}

export function* generatedPairs(count, words) {
  for (let i = 0; i < count; i++) {
    const [question1, question2] = [generatedQuestion(words, 2 * i), generatedQuestion(words, 2 * i + 1)];
    yield { question1, question2, is_duplicate: i % 2 };
  }
}
