import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export function quantPath(name: string): string {
  return fileURLToPath(new URL(`../fixtures/quant/${name}`, import.meta.url));
}

/** Copies a folder that transformers and bitsandbytes wrote, and puts a tokenizer beside it. */
export function copyQuantModel(
  name: string,
  folder: string,
  change: (config: Record<string, unknown>) => void = () => {},
): string {
  cpSync(quantPath(name), folder, { recursive: true });
  cpSync(join(quantPath("../tokenizer"), "tokenizer.json"), join(folder, "tokenizer.json"));
  const file = join(folder, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8"));
  change(config);
  writeFileSync(file, JSON.stringify(config));
  return folder;
}
