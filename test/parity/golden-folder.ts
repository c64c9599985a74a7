import { cpSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type ModelFolder, openModelFolder } from "../../lib/model/folder.js";
import { goldenPath } from "./golden.js";

/** A copy of a golden model, with a tokenizer, which a model folder has. */
export function goldenFolder(name: string, folder: string): Promise<ModelFolder> {
  cpSync(goldenPath(`models/${name}`), folder, { recursive: true });
  const tokenizer = fileURLToPath(new URL("../fixtures/tokenizer/tokenizer.json", import.meta.url));
  cpSync(tokenizer, `${folder}/tokenizer.json`);
  return openModelFolder(folder);
}
