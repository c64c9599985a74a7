/** One line of CSV with its LF; fields are quoted only where they must be, as pandas' `to_csv` does. */
export function csvLine(fields: readonly string[]): string {
  return `${fields.map(csvField).join(",")}\n`;
}

function csvField(text: string): string {
  // A lone CR ends a line for some readers, so it is quoted too.
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
