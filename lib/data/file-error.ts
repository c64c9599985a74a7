import { existsSync } from "node:fs";
import path from "node:path";
import { type ErrorCode, PeftTrainError } from "../errors.js";

/** A failed system call on a file (or what was to be a folder) that the user named, as one of our errors. */
export function fileError(file: string, cause: unknown, kind: "file" | "folder" = "file"): PeftTrainError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  if (code === "ENOENT") {
    return new PeftTrainError("FILE_NOT_FOUND", `there is no ${kind} ${file}`, {
      hint: `Paths are taken from the current folder, ${process.cwd()}.`,
      cause,
    });
  }
  return new PeftTrainError("FILE_UNREADABLE", `cannot read ${file}: ${why(code, cause)}`, { cause });
}

/** A failed write, as one of our errors. */
export function outputError(file: string, cause: unknown): PeftTrainError {
  const { code, syscall, path: at } = (cause ?? {}) as NodeJS.ErrnoException;
  const kind: ErrorCode = "OUTPUT_UNWRITABLE";
  // As /proc says it: the folder is there, and takes nothing.
  const making = syscall === "mkdir" || syscall === "open";
  const closed = code === "ENOENT" && making && existsSync(path.dirname(at ?? file));
  const reason = closed ? "no file or folder can be made there" : why(code, cause);
  return new PeftTrainError(kind, `cannot write ${file}: ${reason}`, { cause });
}

function why(code: string | undefined, cause: unknown): string {
  switch (code) {
    case "EISDIR":
      return "it is a folder";
    case "EEXIST":
      return "a file of that name is in the way";
    case "ENOTDIR":
      return "a part of its path is a file, not a folder";
    case "EACCES":
    case "EPERM":
      return "permission denied";
    case "EROFS":
      return "the file system is read-only";
    case "ENOSPC":
      return "no space left on the device";
    case "EDQUOT":
      return "the disk quota is used up";
    case "ENOENT":
      return "its folder does not exist";
    default:
      return cause instanceof Error ? cause.message : String(cause);
  }
}
