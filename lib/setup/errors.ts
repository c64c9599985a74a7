import { PeftTrainError } from "../errors.js";

export const OWN_TORCH = "point PEFT_TRAIN_LIBTORCH at a torch/ or libtorch/ folder that you have";

export function aborted(): PeftTrainError {
  return new PeftTrainError("ABORTED", "Stopped while fetching libtorch", {
    hint: "Run: npx peft-train setup",
  });
}

export function diskFull(folder: string, detail: string, cause?: unknown): PeftTrainError {
  return new PeftTrainError("OUTPUT_UNWRITABLE", `Not enough space for libtorch in ${folder}: ${detail}`, {
    cause,
    hint: "Make room, or set PEFT_TRAIN_CACHE to a folder on another disk.",
  });
}
