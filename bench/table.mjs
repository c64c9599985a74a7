/** A Markdown table; the first column is text, the others are figures. A column without any is left out. */
export function markdownTable(head, rows) {
  const kept = head.map((_, i) => i === 0 || rows.some((row) => (row[i] ?? "") !== ""));
  for (const row of rows)
    if (row.length !== head.length) throw new Error(`${row.length} cells under ${head.length} headings`);
  const cell = (value) => String(value ?? "").replaceAll("|", "\\|");
  const line = (cells) =>
    `| ${cells
      .filter((_, i) => kept[i])
      .map(cell)
      .join(" | ")} |`;
  const rule = `|---${"|---:".repeat(kept.filter(Boolean).length - 1)}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

/** Three digits that mean something, and no exponent. */
export function figure(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return "";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  const [whole, rest] = value.toFixed(digits).split(".");
  return rest === undefined ? count(whole) : `${count(whole)}.${rest}`;
}

/** A whole number. */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `median (min to max)`; the median alone where it was measured once. */
export function spread({ median, min, max, values }, scale = 1) {
  if (values.length === 1) return figure(median * scale);
  return `${figure(median * scale)} (${figure(min * scale)} to ${figure(max * scale)})`;
}

export function mebibytes(bytes) {
  return bytes === undefined ? "" : count(Math.round(bytes / 2 ** 20));
}
