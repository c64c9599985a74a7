import { fileURLToPath } from "node:url";
import { readTexts } from "./texts.js";

/** Texts of the package's own pairs: enough to know a mean cosine far better than the drift of a merge. */
const OWN_TEXTS = 256;
const OWN_FILE = fileURLToPath(new URL("../../data/pairs/test.csv", import.meta.url));

/** A file of texts, or questions that come with the package. @throws As reading texts does. */
export async function probeTexts(file?: string, column?: string): Promise<string[]> {
  if (file !== undefined) return readTexts(file, column);
  return [...new Set(await readTexts(OWN_FILE, "question1"))].slice(0, OWN_TEXTS);
}
