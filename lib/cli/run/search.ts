import { streamTexts } from "../../data/texts.js";
import { orList, VECTOR_EXTENSIONS, vectorExtension } from "../../data/vectors.js";
import { PeftTrainError } from "../../errors.js";
import { type Neighbour, nearestRows } from "../../search.js";
import { table } from "../display/terminal.js";
import { type FlagValues, flagRequest, readFlags, requireFlags, textFlag } from "../flags.js";
import { VECTOR_FLAGS } from "../vector-flags.js";
import { loadEncoder } from "./load-encoder.js";

const MOST = 10_000;

/** `peft-train search` */
export async function runSearch(args: FlagValues): Promise<void> {
  const text = textFlag(args, "text");
  if (text === undefined) {
    throw new PeftTrainError("USAGE", "the text to search for is required", {
      hint: 'For example: npx peft-train search "how do I swim" --model_name_or_path=models/e5-small-v2 --index=vectors.npy',
    });
  }
  requireFlags(
    args,
    ["model_name_or_path", "index"],
    `search ${JSON.stringify(text)} --model_name_or_path=models/e5-small-v2 --index=vectors.npy --texts=texts.txt`,
  );
  const flags = readFlags(args, VECTOR_FLAGS);
  const [index, texts] = [textFlag(args, "index") as string, textFlag(args, "texts")];
  if (vectorExtension(index) === undefined) {
    throw new PeftTrainError(
      "USAGE",
      `--index=${index}: expected a name that ends in ${orList(VECTOR_EXTENSIONS)}`,
    );
  }
  const top = readTop(textFlag(args, "top") ?? "10");
  const request = flagRequest(flags);
  await using encoder = await loadEncoder(args, flags, request);
  const [query] = await encoder.encode([text], {
    prefix: flags.prefix as string | undefined,
    maxLength: flags.max_length as number | undefined,
  });
  const found = await nearestRows(index, query as Float32Array, top);
  const shown = texts === undefined ? undefined : await textsOf(texts, textFlag(args, "column"), found);
  print(found, shown, args.json === true);
}

function readTop(text: string): number {
  const top = Number(text);
  if (Number.isInteger(top) && top >= 1 && top <= MOST) return top;
  throw new PeftTrainError(
    "USAGE",
    `--top=${text}: expected a whole number of at least 1 and at most ${MOST}`,
  );
}

/** The texts of the rows that were found; the file is read no further than the last of them. */
async function textsOf(
  file: string,
  column: string | undefined,
  found: readonly Neighbour[],
): Promise<Map<number, string>> {
  const wanted = new Set(found.map(({ row }) => row));
  const texts = new Map<number, string>();
  let row = 0;
  for await (const group of streamTexts(file, column)) {
    for (const text of group) {
      if (wanted.has(row)) texts.set(row, text);
      row++;
    }
    if (texts.size === wanted.size) return texts;
  }
  if (texts.size === wanted.size) return texts;
  throw new PeftTrainError("DATA_MALFORMED", `${file} has ${row} texts, fewer than there are vectors`, {
    hint: "Give the file that was encoded, and the same --column.",
  });
}

function print(found: readonly Neighbour[], texts: Map<number, string> | undefined, json: boolean): void {
  if (json) {
    for (const [i, { row, score }] of found.entries()) {
      const line = { rank: i + 1, row, score, ...(texts && { text: texts.get(row) }) };
      process.stdout.write(`${JSON.stringify(line)}\n`);
    }
    return;
  }
  const head = ["rank", "score", texts === undefined ? "row" : "text"];
  const rows = found.map(({ row, score }, i) => [
    String(i + 1),
    score.toFixed(4),
    texts === undefined ? String(row) : oneLine(texts.get(row) as string),
  ]);
  process.stdout.write(`${table(head, rows)}\n`);
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ");
  return line.length <= 200 ? line : `${line.slice(0, 199)}…`;
}
