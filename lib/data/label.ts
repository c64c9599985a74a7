import { PeftTrainError } from "../errors.js";
import { place, type TableRecord } from "./table.js";

/** The label of a record. @throws DATA_LABEL, naming row and value, when it is not 0 or 1. */
export function labelOf(file: string, record: TableRecord, column: number, name: string): 0 | 1 {
  const text = record.fields[column] as string;
  // pandas writes 1.0 where a column once had gaps.
  const match = /^\s*([01])(?:\.0*)?\s*$/.exec(text);
  if (match === null) {
    throw new PeftTrainError(
      "DATA_LABEL",
      `${place(file, record)}: expected 0 or 1 in column ${name}, found ${shown(text)}`,
      {
        hint: "1 stands for the same meaning, 0 for another.",
      },
    );
  }
  return match[1] === "1" ? 1 : 0;
}

/** The score of a record. @throws DATA_LABEL, naming row and value, when it is no number, or none of the range. */
export function scoreOf(
  file: string,
  record: TableRecord,
  column: number,
  name: string,
  [least, most]: readonly [number, number] = [-Infinity, Infinity],
): number {
  const text = record.fields[column] as string;
  const score = text.trim() === "" ? Number.NaN : Number(text);
  if (!Number.isFinite(score) || score < least || score > most) {
    const expected = least === -Infinity ? "a number" : `a number from ${least} to ${most}`;
    throw new PeftTrainError(
      "DATA_LABEL",
      `${place(file, record)}: expected ${expected} in column ${name}, found ${shown(text)}`,
      { hint: "It says how alike the two texts are: the higher, the more." },
    );
  }
  return score;
}

function shown(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text);
}
