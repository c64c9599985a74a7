import { writeFileSync } from "node:fs";
import { mulberry32 } from "./tiny-model.js";

const WORDS = "a b c d e f g h i j k l m n o p q r s t u v w x y z".split(" ");

/** Writes a CSV of labelled pairs: a positive shares all its words, a negative half of them. */
export function writePairs(file: string, count: number, seed = 1): string {
  const random = mulberry32(seed);
  const word = () => WORDS[Math.floor(random() * WORDS.length)] as string;
  const lines = ["id,question1,question2,is_duplicate"];
  for (let i = 0; i < count; i++) {
    const first = Array.from({ length: 4 + Math.floor(random() * 8) }, word);
    const label = i % 3 === 0 ? 1 : 0;
    const second = label === 1 ? first.toReversed() : first.map((w, at) => (at % 2 === 0 ? w : word()));
    lines.push(`${i},${first.join(" ")},"${second.join(" ")}?",${label}`);
  }
  writeFileSync(file, `${lines.join("\n")}\n`);
  return file;
}
