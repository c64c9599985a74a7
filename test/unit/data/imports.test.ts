import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

const LIB = path.join(import.meta.dirname, "../../../lib");

/** Imports go one way (docs/architecture.md): these two rooms know nothing of the rest of the house but its errors. */
test.each([
  ["data", /^(\.\/|\.\.\/errors\.js$)/],
  ["metrics", /^(\.\/|\.\.\/errors\.js$)/],
])("lib/%s imports nothing of ours but errors and the types of the native interface", (room, allowed) => {
  const files = readdirSync(path.join(LIB, room));
  expect(files.length).toBeGreaterThan(4);
  for (const file of files) {
    const source = readFileSync(path.join(LIB, room, file), "utf8");
    const imports = source.matchAll(/^(import|export) (type )?[^;]*?from "([^"]+)";$/gm);
    for (const [, , typeOnly, from = ""] of imports) {
      if (!from.startsWith(".") || (typeOnly && from === "../native/types.js")) continue;
      expect(from, `${room}/${file}`).toMatch(allowed);
    }
  }
});
