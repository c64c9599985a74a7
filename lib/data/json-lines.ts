import { PeftTrainError } from "../errors.js";
import { readLines } from "./lines.js";

/** One value of a JSON Lines file. */
export interface JsonLine {
  value: unknown;
  /** Counted from 1, blank lines included. */
  line: number;
}

/** The JSON values of a file, one a line, in groups as they are read; blank lines are passed over. @throws DATA_MALFORMED */
export async function* readJsonLines(
  file: string,
  onBytes?: (bytes: Uint8Array) => void,
): AsyncGenerator<JsonLine[]> {
  let line = 0;
  for await (const lines of readLines(file, onBytes)) {
    const values: JsonLine[] = [];
    for (const text of lines) {
      line++;
      if (text.trim() !== "") values.push({ value: parse(text, file, line), line });
    }
    if (values.length > 0) yield values;
  }
}

function parse(text: string, file: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const list = line === 1 && text.trimStart().startsWith("[");
    throw new PeftTrainError(
      "DATA_MALFORMED",
      `${file}, line ${line}: not valid JSON: ${(cause as Error).message}`,
      {
        hint: list
          ? `One list over many lines: jq -c '.[]' ${JSON.stringify(file)} > lines.jsonl makes a line of each item.`
          : "Expected one JSON value a line.",
        cause,
      },
    );
  }
}
