import { describe, expect, it } from "vitest";
import type { PeftTrainError } from "../../../lib/errors.js";
import {
  type OptionDefinition,
  type OptionName,
  TRAIN_OPTIONS,
} from "../../../lib/train/options/option-table.js";
import { parseOption } from "../../../lib/train/options/option-value.js";

const ENTRIES = Object.entries(TRAIN_OPTIONS) as [OptionName, OptionDefinition][];

/** Values that an option of this kind must not take, and what has to be said of what it takes. */
function badValues(definition: OptionDefinition): [value: unknown, allowed: string][] {
  const wrongTypes = [[], {}];
  switch (definition.type) {
    case "string": {
      if (definition.choices !== undefined) {
        const allowed = definition.choices.join(", ");
        return ["", "no such choice", `${definition.choices[0]} `, 3].map((value) => [value, allowed]);
      }
      const allowed = definition.expected ?? "a value";
      const bad: unknown[] = [7, true, ...wrongTypes];
      if (!definition.mayBeEmpty) bad.push("");
      if (definition.pattern !== undefined) bad.push("!", " ");
      return bad.map((value) => [value, allowed]);
    }
    case "boolean":
      return ["yes", "1", "", 1, "TRUE "].map((value) => [value, "true or false"]);
    case "integer":
    case "number": {
      const { min, max } = definition;
      const bad: unknown[] = [
        "",
        "x",
        "NaN",
        "Infinity",
        "0x10",
        "1,5",
        " 1",
        `${min - 1}`,
        `${max * 2}`,
        Number.NaN,
        true,
        [],
      ];
      if (definition.type === "integer") bad.push("1.5", 1.5);
      if (definition.above) bad.push(`${min}`);
      if (definition.below) bad.push(`${max}`);
      if (definition.powerOfTwo) bad.push(`${min + 1}`);
      return bad.map((value) => [value, String(max)]);
    }
    case "targets":
      return ["", " , ", 3, [""], []].map((value) => [value, "module names"]);
    case "names":
      return ["", ",", "a,", 3, [""], []].map((value) => [value, "names"]);
    case "numbers": {
      const bad: unknown[] = ["", "x", "1,x", `${definition.min - 1}`, `${definition.max + 1}`, 3, []];
      if (definition.whole) bad.push("1.5");
      return bad.map((value) => [value, String(definition.max)]);
    }
    case "checkpoints":
      return ["", "0", "1.5", "epochs", "-1", "2147483648", true].map((value) => [value, "or epoch"]);
    case "pattern":
      return ["", "x", "3", "[1]", '{"a":"b"}', '{"a":-1}', '{"a":1e9}', 3].map((value) => [
        value,
        "JSON object",
      ]);
    case "init":
      return ["", "yes", "gauss", 1, []].map((value) => [value, "true, false, gaussian"]);
    case "settings":
      return ["", "x", "3", "[1]", "{", 3].map((value) => [value, "JSON object"]);
  }
}

function refusal(name: OptionName, value: unknown): PeftTrainError {
  try {
    parseOption(name, value);
  } catch (error) {
    return error as PeftTrainError;
  }
  throw new Error(`--${name}=${JSON.stringify(value)} was taken`);
}

describe("no option takes a bad value, and each says in one line what it takes", () => {
  for (const [name, definition] of ENTRIES) {
    it(`--${name}`, () => {
      const bad = badValues(definition);
      expect(bad.length).toBeGreaterThan(3);
      for (const [value, allowed] of bad) {
        const error = refusal(name, value);
        const shown =
          typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value);
        expect(error.code).toBe("USAGE");
        expect(error.message).toContain(`--${name}${value === "" ? "" : `=${shown}`}: expected `);
        expect(error.message).toContain(allowed);
        expect(error.message).not.toContain("\n");
      }
    });
  }
});
