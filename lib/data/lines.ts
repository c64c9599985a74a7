import { readUtf8 } from "./utf8.js";

/** Lines that end in LF, CR LF or CR; what follows the last end is a line only if it holds anything. */
export async function* readLines(
  file: string,
  onBytes?: (bytes: Uint8Array) => void,
): AsyncGenerator<string[]> {
  let rest = "";
  for await (const piece of readUtf8(file, onBytes)) {
    // A CR at the end may be half of a CR LF, so it waits for what follows.
    const joined = rest.endsWith("\r") ? `\r${piece}` : piece;
    const begun = rest.endsWith("\r") ? rest.slice(0, -1) : rest;
    const held = joined.endsWith("\r") ? "\r" : "";
    const lines = joined.slice(0, joined.length - held.length).split(/\r\n|\n|\r/);
    lines[0] = begun + lines[0];
    rest = lines.pop() + held;
    yield lines;
  }
  if (rest !== "") yield [rest.replace(/\r$/, "")];
}
