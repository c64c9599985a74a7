/** A value as one line of JSON with keys in snake case, as the flags and Python's tools write them. */
export function jsonLine(value: object): string {
  return JSON.stringify(snakeCaseKeys(value));
}

export function snakeCaseKeys(value: unknown): unknown {
  return withKeys(value, (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
}

/** What was written with `snakeCaseKeys`. */
export function camelCaseKeys(value: unknown): unknown {
  return withKeys(value, (key) => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()));
}

function withKeys(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => withKeys(item, rename));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => [rename(key), withKeys(field, rename)]),
  );
}
