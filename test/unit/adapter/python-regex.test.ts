import { describe, expect, it } from "vitest";
import { fullMatch, suffixMatch } from "../../../lib/adapter/python-regex.js";

const QUERY = "encoder.layer.0.attention.self.query";
const KEY = "encoder.layer.11.attention.self.key";
const OUTPUT = "encoder.layer.1.output.dense";
const POOLER = "pooler.dense";

describe("a pattern matches what re.fullmatch matches (Python 3.11)", () => {
  for (const [pattern, expected] of [
    [".*query", [QUERY]],
    ["query", []],
    [".*\\.(?P<m>query|key)", [QUERY, KEY]],
    ["encoder\\.layer\\.(\\d)\\..*", [QUERY, OUTPUT]],
    [".*layer\\.[01]\\..*", [QUERY, OUTPUT]],
    [".*(?:self|output)\\.(?!key)\\w+", [QUERY, OUTPUT]],
    ["\\Aencoder.*dense\\Z", [OUTPUT]],
    [".*[]q]uery", [QUERY]],
    [".*[^]]dense", [OUTPUT, POOLER]],
    ["(?P<a>e)ncod(?P=a)r.*", [QUERY, KEY, OUTPUT]],
    [".*\\.output\\.dense$", [OUTPUT]],
    ["(?<!x)pooler\\.dense", [POOLER]],
    [".{12}", [POOLER]],
    ["pooler|encoder", []],
    ["pooler.dense|.*key", [KEY, POOLER]],
  ] as const) {
    it(pattern, () => {
      expect([QUERY, KEY, OUTPUT, POOLER].filter(fullMatch(pattern))).toEqual(expected);
    });
  }
});

describe("a pattern that JavaScript would read otherwise is refused", () => {
  for (const [pattern, named] of [
    ["(?i)QUERY", "(?i)"],
    ["(?x: a )", "(?x:"],
    ["(?>a|b)", "(?>a"],
    ["a++", "possessive"],
    ["a{2}+", "possessive"],
    ["(?#comment)query", "(?#c"],
    ["\\hquery", "\\\\h"],
    ["query\\", "backslash"],
    ["[abc", "without its ]"],
    ["(query", "not a valid regular expression"],
    ["*query", "not a valid regular expression"],
  ] as const) {
    it(pattern, () => {
      expect(() => fullMatch(pattern)).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(named) }),
      );
    });
  }
});

describe("a key of rank_pattern or alpha_pattern", () => {
  for (const [key, name, expected] of [
    ["query", QUERY, true],
    ["uery", QUERY, false],
    ["^query", QUERY, false],
    ["^encoder.layer.0.attention.self.query", QUERY, true],
    ["layer\\.[01]\\.attention\\.self\\.query", QUERY, true],
    ["self", QUERY, false],
    ["query|key", KEY, true],
  ] as const) {
    it(`${key} ${expected ? "matches" : "does not match"} ${name}`, () => {
      expect(suffixMatch(key)(name)).toBe(expected);
    });
  }
});
