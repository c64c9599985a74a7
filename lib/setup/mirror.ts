import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { PeftTrainError } from "../errors.js";

/** Where wheels come from: a package index (PEP 503) by its address, or files on this machine. */
export type Mirror = { index: string } | { folder: string; wheel: string | undefined };

export const DEFAULT_INDEX = "https://pypi.org/simple";

/**
 * Reads `--mirror` or PEFT_TRAIN_MIRROR: an address, a folder of wheels, or torch's wheel with the others beside it.
 * @throws USAGE, FILE_NOT_FOUND
 */
export function parseMirror(text: string): Mirror {
  if (/^https?:\/\//.test(text)) {
    if (!URL.canParse(text)) throw unfit(text, "it is not an address");
    return { index: text.replace(/\/+$/, "") };
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) throw unfit(text, "only http and https are fetched from");
  const path = resolve(text);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    throw new PeftTrainError("FILE_NOT_FOUND", `--mirror=${text}: there is no such file or folder`, {
      hint: `Paths are taken from the current folder, ${process.cwd()}; an index is named with https://.`,
    });
  }
  if (found.isDirectory()) return { folder: path, wheel: undefined };
  if (!path.endsWith(".whl")) throw unfit(text, "it is a file, and no wheel (.whl)");
  return { folder: dirname(path), wheel: path };
}

function unfit(text: string, why: string): PeftTrainError {
  return new PeftTrainError("USAGE", `--mirror=${text}: ${why}`, {
    hint: "Give the address of a package index (https://HOST/simple), a folder of wheels, or torch's wheel.",
  });
}
