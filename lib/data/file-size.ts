import { stat } from "node:fs/promises";
import { fileError } from "./file-error.js";

/** Bytes of a file; 0 for what has no size, such as a pipe. @throws FILE_NOT_FOUND or FILE_UNREADABLE. */
export async function fileSize(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (cause) {
    throw fileError(file, cause);
  }
}
