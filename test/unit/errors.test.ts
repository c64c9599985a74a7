import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { ERROR_CODES } from "../../lib/errors.js";
import { type OptionName, PRECISION_FLAGS, TRAIN_OPTIONS } from "../../lib/train/options/option-table.js";

const doc = (name: string) => readFileSync(new URL(`../../docs/${name}`, import.meta.url), "utf8");

it("docs/errors.md has every code, and no other", () => {
  const documented = [...doc("errors.md").matchAll(/^\| `([A-Z_]+)` \|/gm)].map(
    (match) => match[1] as string,
  );
  expect(documented.sort()).toEqual([...ERROR_CODES].sort());
});

it("the documentation names no training flag that is not there", () => {
  const aliases = Object.values(TRAIN_OPTIONS).flatMap((option) => ("alias" in option ? [option.alias] : []));
  const names = Object.keys(TRAIN_OPTIONS) as OptionName[];
  const flags = new Set<string>([...names, ...aliases, ...PRECISION_FLAGS, "json", "quiet", "config"]);
  const found = [...doc("training.md").matchAll(/--(?:no-)?([a-z]\w+)/g)].map((match) => match[1] as string);
  expect(found.length).toBeGreaterThan(20);
  expect(found.filter((flag) => !flags.has(flag))).toEqual([]);
});
