import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";

/** A folder for the tests of one file; `path(...)` is valid inside tests and hooks. */
export function temporaryFolder(): { path: (...names: string[]) => string } {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "peft-train-test-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return { path: (...names) => join(folder, ...names) };
}
