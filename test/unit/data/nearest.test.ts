import { expect, test } from "vitest";
import { nearest } from "../../../lib/data/nearest.js";

test("nearest", () => {
  expect(nearest("lable", ["id", "label", "table"])).toBe("label");
  expect(nearest("is-duplicate", ["is_duplicate"])).toBe("is_duplicate");
  expect(nearest("text", ["question1", "question2"])).toBeUndefined();
  expect(nearest("is_duplicate", ["id", "is_dup"])).toBe("is_dup");
  expect(nearest("question", ["question1", "questions"])).toBe("question1");
  expect(nearest("is", ["is_duplicate"])).toBeUndefined();
  expect(nearest("x", [])).toBeUndefined();
});
