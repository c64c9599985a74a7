/** A value as one line of JSON with keys in snake case, as the flags and Python's tools write them. */
export function jsonLine(value: object): string {
  return JSON.stringify(snakeCaseKeys(value));
}

export function snakeCaseKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snakeCaseKeys);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => [
      key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      snakeCaseKeys(field),
    ]),
  );
}
