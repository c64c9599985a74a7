import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { TRAIN_OPTIONS } from "../../lib/train/options/option-table.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const PAGES = [
  ...readdirSync(root).filter((name) => name.endsWith(".md")),
  ...readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];

const withoutCode = (text: string): string =>
  text.replaceAll(/^```[\s\S]*?^```/gm, "").replaceAll(/`[^`\n]*`/g, "");

/** Anchors of a page's headings, as GitHub makes them. */
function anchors(file: string): Set<string> {
  const found = new Set<string>();
  const text = readFileSync(file, "utf8").replaceAll(/^```[\s\S]*?^```/gm, "");
  for (const [, heading = ""] of text.matchAll(/^#{1,6} +(.*)$/gm)) {
    const plain = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1");
    const base = plain
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\p{M}_\- ]/gu, "")
      .replaceAll(" ", "-");
    let anchor = base;
    for (let i = 1; found.has(anchor); i++) anchor = `${base}-${i}`;
    found.add(anchor);
  }
  return found;
}

describe("links lead somewhere", () => {
  for (const page of PAGES) {
    it(page, () => {
      const text = withoutCode(readFileSync(join(root, page), "utf8"));
      const dead: string[] = [];
      for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(target)) continue;
        const [path = "", anchor] = target.split("#");
        const file = path === "" ? join(root, page) : join(root, dirname(page), path);
        const isThere = existsSync(file) && !relative(root, file).startsWith("..");
        if (
          !isThere ||
          (anchor !== undefined && (statSync(file).isDirectory() || !anchors(file).has(anchor)))
        )
          dead.push(target);
      }
      expect(dead).toEqual([]);
    });
  }
});

it("every page of docs is reachable from the README", () => {
  const linked = new Set<string>();
  const follow = (page: string): void => {
    if (linked.has(page) || !existsSync(join(root, page))) return;
    linked.add(page);
    for (const [, target = ""] of readFileSync(join(root, page), "utf8").matchAll(/\]\(([^)#\s]+\.md)/g)) {
      if (!/^https?:/.test(target)) follow(join(dirname(page), target));
    }
  };
  follow("README.md");
  expect(PAGES.filter((page) => page.startsWith("docs") && !linked.has(page))).toEqual([]);
});

it("every training flag is spoken of in docs", () => {
  const text = PAGES.map((page) => readFileSync(join(root, page), "utf8")).join("\n");
  const unspoken = Object.keys(TRAIN_OPTIONS).filter((name) => !new RegExp(`--(no-)?${name}\\b`).test(text));
  expect(unspoken).toEqual([]);
});
