import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import path from "node:path";
import { fileError } from "../data/file-error.js";
import type { ModelFolder } from "./folder.js";

/** What an adapter belongs to: SHA-256 of the files that decide what an embedding is, in hexadecimal. */
export interface Fingerprint {
  weights: string;
  tokenizer: string;
}

/** Hashes model.safetensors and tokenizer.json as they are on the disk. */
export async function fingerprint(model: ModelFolder): Promise<Fingerprint> {
  const [weights, tokenizer] = await Promise.all([
    sha256(model.weightsPath),
    sha256(path.join(model.path, "tokenizer.json")),
  ]);
  return { weights, tokenizer };
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  } catch (cause) {
    throw fileError(file, cause);
  }
  return hash.digest("hex");
}
