import { PeftTrainError } from "../errors.js";
import { type CsvRecord, place } from "./csv.js";

/** The label of a record. @throws DATA_LABEL, naming row and value, when it is not 0 or 1. */
export function labelOf(file: string, record: CsvRecord, column: number, name: string): 0 | 1 {
  const text = record.fields[column] as string;
  // pandas writes 1.0 where a column once had gaps.
  const match = /^\s*([01])(?:\.0*)?\s*$/.exec(text);
  if (match === null) {
    const shown = JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text);
    throw new PeftTrainError(
      "DATA_LABEL",
      `${place(file, record)}: expected 0 or 1 in column ${name}, found ${shown}`,
      {
        hint: "1 stands for the same meaning, 0 for another.",
      },
    );
  }
  return match[1] === "1" ? 1 : 0;
}
