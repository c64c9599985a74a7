import { join } from "node:path";
import { Tokenizer } from "../data/tokenizer.js";
import { PACKAGE_ROOT } from "../native/package-root.js";

export interface Tokenized {
  /** [CLS] and [SEP] counted. */
  tokens: number;
}

/** Loads the tokenizer of the encoder that comes with the package, and so the addon of the library, and uses it once. */
export async function tokenizeOnce(): Promise<Tokenized> {
  const tokenizer = await Tokenizer.load(join(PACKAGE_ROOT, "data", "encoder"));
  const { ids } = await tokenizer.encode(["How do I learn to swim?"], 32);
  return { tokens: ids.length };
}
