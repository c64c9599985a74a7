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
    const args = { bnb_4bit_compute_dtype: "float16", use_dora: true };
    for (const typed of [
      ["--bnb_4bit_compute_dtype", "float16", "--use_dora", "--prefix=query: "],
      ["--bnb_4bit_compute_dtype=float16", "--prefix=query: ", "--use_dora=true"],
      ["--bnb_4bit_compute_dtype=float16", "--use_dora", "--prefix=query: "],
    ]) {
      expect(rest(args, typed)).toBe("'--prefix=query: '");
    }
  });

  it("keeps the word after a switch", () => {
    expect(rest({ use_dora: true }, ["--use_dora", "x"])).toBe("x");
  });
});

it("nothing is refused where everything is off", () => {
  const args = { bnb_4bit_compute_dtype: "float32", fp16: false, mixed_precision: "no", use_dora: undefined };
  expect(() => refuseUnavailable(args, [])).not.toThrow();
});
