import path from "node:path";
import Papa from "papaparse";
import { PeftTrainError } from "../errors.js";
import { unpackedName } from "./byte-stream.js";
import { place, type TableRecord } from "./table.js";
import { readUtf8 } from "./utf8.js";

/** One record of a CSV file, counted as a spreadsheet and an editor show it: the header is row 1 on line 1. */
export interface CsvRecord extends TableRecord {
  /** Number of the record, blank lines included. */
  row: number;
  /** Line that the record begins on; beyond `row` once a quoted field has held line breaks. */
  line: number;
}

export interface CsvOptions {
  delimiter: string;
  /** Sees every byte of the file once, in order. */
  onBytes?: ((bytes: Uint8Array) => void) | undefined;
}

/** No text is this long; a quote that is never closed is. */
const LONGEST_RECORD = 128 * 1024 * 1024;

export function delimiterOf(file: string): string {
  return [".tsv", ".tab"].includes(path.extname(unpackedName(file)).toLowerCase()) ? "\t" : ",";
}

/**
 * All records of a CSV file, the header with them, in groups as they are read. Lines end in LF, CR LF or CR.
 * @throws DATA_MALFORMED at a quoted field that is never closed or goes on after its closing quote.
 */
export async function* readCsv(file: string, options: CsvOptions): AsyncGenerator<CsvRecord[]> {
  const parser = new RecordParser(file, options.delimiter);
  let text = "";
  // A record that goes on beyond the text is parsed again only once there is twice as much of it.
  let wait = 0;
  for await (const piece of readUtf8(file, options.onBytes)) {
    text += piece;
    if (text.length < wait) continue;
    const { records, consumed } = parser.parse(text, false);
    text = text.slice(consumed);
    wait = records.length === 0 ? text.length * 2 : 0;
    if (text.length > LONGEST_RECORD) throw parser.tooLong();
    if (records.length > 0) yield records;
  }
  const { records } = parser.parse(text, true);
  if (records.length > 0) yield records;
}

/** Turns pieces of text into records; remembers how far down the file it is. */
class RecordParser {
  private row = 1;
  private line = 1;
  private newline: string | undefined;

  constructor(
    private readonly file: string,
    private readonly delimiter: string,
  ) {}

  /** Whole records at the beginning of `text`; unless it is the last text, what follows the last line end is left. */
  parse(text: string, isLast: boolean): { records: CsvRecord[]; consumed: number } {
    this.newline ??= lineEnd(text, isLast);
    if (this.newline === undefined) return { records: [], consumed: 0 };
    const newline = this.newline;
    const records: CsvRecord[] = [];
    let consumed = 0;
    const step = (result: Papa.ParseStepResult<string[]>): void => {
      const end = result.meta.cursor;
      const raw = text.slice(consumed, end);
      if (raw === "") return; // Papa Parse sees an empty record after the last line end.
      const [error] = result.errors;
      if (error !== undefined) throw this.quoteError(raw, (error.index ?? 0) - consumed, error.code);
      const [fields] = result.data as unknown as [string[]]; // the bare parser gives a list of one row
      if (newline === "\n") stripCarriageReturn(fields, raw);
      records.push({ fields, row: this.row, line: this.line });
      this.row++;
      this.line += count(raw, newline, raw.length);
      consumed = end;
    };
    const parser = new Papa.Parser({ delimiter: this.delimiter, newline: newline as "\n", step });
    parser.parse(text, 0, !isLast);
    return { records, consumed };
  }

  tooLong(): PeftTrainError {
    return new PeftTrainError(
      "DATA_MALFORMED",
      `${this.here()}: a record of more than ${LONGEST_RECORD / 1024 / 1024} MB`,
      { hint: 'Most likely a quote (") opens a field there and is never closed.' },
    );
  }

  private here(): string {
    return place(this.file, { row: this.row, line: this.line });
  }

  /** @param fieldStart Where in `raw` the text of the field begins, after its opening quote. */
  private quoteError(raw: string, fieldStart: number, code: string): PeftTrainError {
    const newline = this.newline as string;
    const opened = this.line + count(raw, newline, fieldStart);
    if (code === "MissingQuotes") {
      return new PeftTrainError(
        "DATA_MALFORMED",
        `${this.here()}: the quoted field that opens on line ${opened} is never closed`,
        { hint: 'Close it with ", and write a quote inside it twice ("").' },
      );
    }
    let close = raw.indexOf('"', fieldStart);
    while (raw[close + 1] === '"') close = raw.indexOf('"', close + 2);
    const closed = this.line + count(raw, newline, close);
    return new PeftTrainError(
      "DATA_MALFORMED",
      `${this.here()}: the quoted field that opens on line ${opened} goes on after its closing quote on line ${closed}`,
      {
        hint:
          'Write a quote inside a quoted field twice ("")' +
          (closed > opened ? ", or close the field." : "."),
      },
    );
  }
}

/**
 * CR where the header ends in a lone one, else LF: a CR before an LF is taken off the field before it. Undefined while
 * the header has no end yet.
 */
function lineEnd(text: string, isLast: boolean): "\n" | "\r" | undefined {
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (char === "\n") return "\n";
    else if (char === "\r") {
      if (i + 1 === text.length && !isLast) return undefined;
      return text[i + 1] === "\n" || i + 1 === text.length ? "\n" : "\r";
    }
  }
  return isLast ? "\n" : undefined;
}

/** Takes the CR of a CR LF off the last field, but not one that is inside its quotes. */
function stripCarriageReturn(fields: string[], raw: string): void {
  const last = fields.at(-1);
  if (last === undefined || !last.endsWith("\r")) return;
  const quoted = raw.endsWith('\r"\r\n') || raw.endsWith('\r"\n') || raw.endsWith('\r"');
  if (!quoted && (raw.endsWith("\r\n") || raw.endsWith("\r"))) fields[fields.length - 1] = last.slice(0, -1);
}

function count(text: string, part: string, end: number): number {
  let found = 0;
  for (let i = text.indexOf(part); i !== -1 && i < end; i = text.indexOf(part, i + part.length)) found++;
  return found;
}
