import { open } from "node:fs/promises";
import { fileError } from "../data/file-error.js";
import { type ErrorCode, PeftTrainError } from "../errors.js";

export type JsonObject = Record<string, unknown>;

/** First bytes of what `git clone` leaves in place of a large file when Git LFS is not installed. */
export const LFS_POINTER = "version https://git-lfs";

/** Configuration files are a few kilobytes; anything near this is something else. */
const LARGEST_CONFIG = 4 << 20;

/** As `readJson`, for a file whose root must be an object. */
export async function readJsonObject(
  file: string,
  corrupt: ErrorCode = "MODEL_CORRUPT",
): Promise<JsonObject | undefined> {
  const value = await readJson(file, corrupt);
  if (value === undefined || isObject(value)) return value;
  throw new PeftTrainError(corrupt, `expected a JSON object in ${file}`);
}

/**
 * Reads a small JSON file; undefined where there is no such file.
 * @param corrupt Code of the error when the file is there and is not JSON.
 * @throws FILE_UNREADABLE, or `corrupt` naming the file and what is wrong with it.
 */
export async function readJson(file: string, corrupt: ErrorCode = "MODEL_CORRUPT"): Promise<unknown> {
  const text = await readSmallFile(file, corrupt);
  if (text === undefined) return undefined;
  if (text.startsWith(LFS_POINTER)) throw lfsPointer(file, corrupt);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new PeftTrainError(corrupt, `${file} is not valid JSON: ${(cause as Error).message}`, {
      hint: "Copy it from its origin again.",
      cause,
    });
  }
}

export function lfsPointer(file: string, code: ErrorCode = "MODEL_CORRUPT"): PeftTrainError {
  return new PeftTrainError(code, `${file} is a Git LFS pointer, not the file itself`, {
    hint: "Run `git lfs install` and `git lfs pull` in its folder.",
  });
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function readSmallFile(file: string, corrupt: ErrorCode): Promise<string | undefined> {
  try {
    await using handle = await open(file);
    const { size } = await handle.stat();
    if (size > LARGEST_CONFIG) {
      throw new PeftTrainError(
        corrupt,
        `${file} has ${size} bytes; expected a configuration of a few kilobytes`,
      );
    }
    return (await handle.readFile("utf8")).replace(/^\uFEFF/, "");
  } catch (cause) {
    if (cause instanceof PeftTrainError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw fileError(file, cause);
  }
}
