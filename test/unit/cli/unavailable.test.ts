import { describe, expect, it } from "vitest";
import { refuseUnavailable } from "../../../lib/cli/unavailable.js";

/** What is left of a command line. */
function rest(args: Record<string, unknown>, typed: string[]): string {
  try {
    refuseUnavailable(args, typed);
  } catch (error) {
    return /npx peft-train (.*)$/s.exec((error as { hint: string }).hint)?.[1] ?? "";
  }
  return expect.fail("nothing was refused");
}

describe("the command line that is left", () => {
  it("loses flags with their values, in every form, and keeps the rest as a shell reads it", () => {
    const args = { bnb_4bit_compute_dtype: "float16", mixed_precision: "fp8" };
    for (const typed of [
      ["--bnb_4bit_compute_dtype", "float16", "--mixed_precision", "fp8", "--prefix=query: "],
      ["--bnb_4bit_compute_dtype=float16", "--prefix=query: ", "--mixed_precision=fp8"],
      ["--bnb_4bit_compute_dtype=float16", "--mixed_precision", "fp8", "--prefix=query: "],
    ]) {
      expect(rest(args, typed)).toBe("'--prefix=query: '");
    }
  });
});

it("nothing is refused where everything is off", () => {
  const args = { bnb_4bit_compute_dtype: "float32", fp16: false, mixed_precision: "no" };
  expect(() => refuseUnavailable(args, [])).not.toThrow();
});
