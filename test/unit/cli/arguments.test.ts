import { describe, expect, it } from "vitest";
import { joinSwitchValues, normalizeArguments, shellQuote, usageError } from "../../../lib/cli/arguments.js";

describe("flags are brought to snake case", () => {
  for (const [given, expected] of [
    [["--learning-rate=5e-4"], ["--learning_rate=5e-4"]],
    [
      ["--learning_rate", "5e-4"],
      ["--learning_rate", "5e-4"],
    ],
    [["--no-use-peft"], ["--no-use_peft"]],
    [["--no-use_peft"], ["--no-use_peft"]],
    [
      ["--num-train_epochs", "3"],
      ["--num_train_epochs", "3"],
    ],
    [["--output-dir=my-run/a-b"], ["--output_dir=my-run/a-b"]],
    [["--prefix=a-b: \n--c-d"], ["--prefix=a-b: \n--c-d"]],
    [
      ["--output_dir", "my-run"],
      ["--output_dir", "my-run"],
    ],
    [
      ["-h", "--", "--a-b"],
      ["-h", "--", "--a-b"],
    ],
    [
      ["--learning_rate", "-1"],
      ["--learning_rate", "-1"],
    ],
  ] as const) {
    it(given.join(" "), () => expect(normalizeArguments(given)).toEqual(expected));
  }
});

describe("values of switches are brought to --name=true", () => {
  for (const [given, expected] of [
    [["--use_peft", "True"], ["--use_peft=true"]],
    [
      ["--use_peft", "true", "--json"],
      ["--use_peft=true", "--json"],
    ],
    [["--use_peft=False"], ["--use_peft=false"]],
    [["--use_peft", "FALSE"], ["--use_peft=false"]],
    [
      ["--no-use_peft", "--json"],
      ["--no-use_peft", "--json"],
    ],
    [
      ["--use_peft", "more"],
      ["--use_peft", "more"],
    ],
    [
      ["--prefix", "True"],
      ["--prefix", "True"],
    ],
    [
      ["--", "--use_peft", "True"],
      ["--", "--use_peft", "True"],
    ],
  ] as const) {
    it(given.join(" "), () => expect(joinSwitchValues(given, ["use_peft", "json"])).toEqual(expected));
  }

  for (const given of [["--use_peft=1"], ["--use_peft", "yes"], ["--use_peft="], ["--no-use_peft", "true"]]) {
    it(`${given.join(" ")} is refused`, () => {
      expect(() => joinSwitchValues(given, ["use_peft"])).toThrow(
        expect.objectContaining({ code: "USAGE", hint: "Give --use_peft alone, or --no-use_peft." }),
      );
    });
  }
});

describe("a word for the shell", () => {
  for (const [text, expected] of [
    ["--max_length=70", "--max_length=70"],
    ["query: ", "'query: '"],
    ["it's", "'it'\\''s'"],
    ["", "''"],
    ["$HOME", "'$HOME'"],
    ["a\nb", "'a\nb'"],
  ] as const) {
    it(JSON.stringify(text), () => expect(shellQuote(text)).toBe(expected));
  }
});

describe("what yargs says becomes an error with a suggestion", () => {
  const flags = ["learning_rate", "lora_r", "output_dir"];
  const commands = ["train", "eval", "encode"];
  for (const [message, args, found, hint] of [
    ["Unknown argument: lora_rank", ["--lora_rank=8"], "unknown flag --lora_rank", "Did you mean --lora_r?"],
    ["Unknown arguments: x, evall", ["evall", "--x=1"], "unknown command evall", "Did you mean eval?"],
    ["Unknown argument: zzzzz", ["zzzzz"], "unknown command zzzzz", "Commands are train, eval, encode."],
    [
      "Unknown argument: zzzzzzzzz",
      ["--zzzzzzzzz"],
      "unknown flag --zzzzzzzzz",
      "Add --help to see what there is.",
    ],
    ["Unknown argument: no_output", ["--no-no_output"], "unknown flag --no_output", undefined],
    ["Unknown argument: q", ["-q"], "unknown flag -q", undefined],
    ["Missing required arguments: input, output_dir", [], "--input, --output_dir are required", undefined],
    ["Missing required argument: input", [], "--input is required", undefined],
    ["Not enough arguments following: input", ["--input"], "--input needs a value", undefined],
    ["Invalid values:\n  Argument: device", [], "Invalid values: Argument: device", undefined],
    [
      'Invalid values:\n  Argument: device, Given: "gpu", Choices: "cpu", "cuda"',
      [],
      "--device=gpu: expected one of cpu, cuda",
      undefined,
    ],
  ] as const) {
    it(message, () => {
      const error = usageError(message, args, flags, commands);
      expect(error.code).toBe("USAGE");
      expect(error.message).toBe(found);
      if (hint !== undefined) expect(error.hint).toBe(hint);
    });
  }
});
