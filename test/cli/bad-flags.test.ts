import { describe, expect, it } from "vitest";
import { refusals } from "../support/refusals.js";

const { runHere, trainArgs, expectRefusal } = refusals();

describe("a command line that says what cannot be is refused in one line", () => {
  const cases: [string, string[], RegExp, RegExp?][] = [
    [
      "an unknown flag",
      [...trainArgs(), "--lerning_rate=1e-3"],
      /unknown flag --lerning_rate/,
      /Did you mean --learning_rate\?/,
    ],
    [
      "in kebab case",
      [...trainArgs(), "--learning-rte", "1e-3"],
      /unknown flag --learning_rte/,
      /Did you mean --learning_rate\?/,
    ],
    ["help of an unknown command", ["help", "trian"], /unknown command trian/, /Did you mean train\?/],
    ["an unknown command and --help", ["nope", "--help"], /unknown command nope/, /Commands are train, /],
    ["an unknown command", ["trian"], /unknown command trian/, /Did you mean train\?/],
    ["a word too many", [...trainArgs(), "more"], /unexpected argument more/],
    [
      "no flags at all",
      [],
      /--model_name_or_path, --dataset_name, --output_dir are required/,
      /npx peft-train demo/,
    ],
    [
      "a number that is none",
      trainArgs({ learning_rate: "fast" }),
      /--learning_rate=fast: expected a number above 0/,
    ],
    ["a number out of range", trainArgs({ learning_rate: "1e9" }), /--learning_rate=1e9: expected a number/],
    [
      "a switch with a value of its own",
      [...trainArgs(), "--sanity_test=1"],
      /--sanity_test=1: expected true or false/,
    ],
    [
      "a flag without its value",
      [...trainArgs(), "--eval_dataset_name"],
      /--eval_dataset_name: expected a value/,
    ],
    ["a choice that is none", trainArgs({ lr_scheduler_type: "linaer" }), /expected one of linear, cosine/],
    ["a margin of a loss that has none", trainArgs({ margin: "0.5" }), /--margin=0\.5: --loss=pair has none/],
    [
      "columns of data that the loss does not take",
      trainArgs({ loss: "cosent", negative_column: "n" }),
      /--negative_column: --loss=cosent takes pairs with scores/,
    ],
    [
      "triplets without negatives",
      trainArgs({ loss: "triplet" }),
      /--loss=triplet needs one --negative_column/,
      /--anchor_column=anchor/,
    ],
    [
      "widths that are none",
      [...trainArgs(), "--matryoshka_dims", "32", "wide"],
      /--matryoshka_dims=32,wide: expected whole numbers from 1/,
    ],
    [
      "widths beyond the model's",
      trainArgs({ matryoshka_dims: "64,32" }),
      /--matryoshka_dims=64,32: 64 is wider than the vectors of model, 32/,
    ],
    [
      "more positions than the model has",
      trainArgs({ max_length: "65" }),
      /--max_length=65: model has 64 positions/,
    ],
    ["a rank above the hidden size", trainArgs({ lora_r: "33" }), /--lora_r=33 is larger than.*32/],
    [
      "targets that match nothing",
      trainArgs({ lora_target_modules: "q_proj,v_proj" }),
      /target modules q_proj,v_proj: no module/,
      /Candidates are .*query/,
    ],
    [
      "targets that match no linear layer",
      trainArgs({ lora_target_modules: "LayerNorm" }),
      /--lora_target_modules: LoRA on "embeddings\.LayerNorm": it is not a linear layer/,
      /Candidates are .*query/,
    ],
    [
      "an expression among names",
      [...trainArgs(), "--lora_target_modules", "query", ".*key"],
      /--lora_target_modules=query,\.\*key: expected names/,
    ],
    [
      "a list without names",
      [...trainArgs(), "--lora_target_modules"],
      /--lora_target_modules: expected module/,
    ],
    [
      "a switch with a word of its own",
      [...trainArgs(), "--use_peft", "yes"],
      /--use_peft=yes: expected true or/,
    ],
    [
      "targets that are no regular expression",
      trainArgs({ lora_target_modules: "(query" }),
      /"\(query" is not a valid/,
    ],
    [
      "two evaluation sets",
      trainArgs({ eval_dataset_name: "train.csv", eval_fraction: "0.2" }),
      /--eval_dataset_name and --eval_fraction/,
    ],
    ["eval without its flags", ["eval"], /--model_name_or_path, --dataset_name are required/],
    ["encode without its flags", ["encode", "--input=x.txt"], /--model_name_or_path, --output are required/],
    [
      "encode to a name of no kind",
      ["encode", "--model_name_or_path=model", "--input=train.csv", "--output=v.bin"],
      /--output=v\.bin: expected .*\.npy, \.jsonl or \.parquet/,
    ],
    [
      "encode from no file",
      ["encode", "--model_name_or_path=model", "--input=no.txt", "--output=v.npy"],
      /there is no file no\.txt/,
    ],
    [
      "prepare with a flag mistyped, before what is missing for it",
      ["prepare", "--imput=train.csv", "--output_dir=out"],
      /unknown flag --imput/,
      /Did you mean --input\?/,
    ],
    ["prepare without its flags", ["prepare"], /--input, --output_dir are required/],
    [
      "prepare with a number that is none",
      ["prepare", "--input=train.csv", "--output_dir=out", "--max_chars=abc"],
      /--max_chars=abc: expected a whole number of at least 2/,
    ],
    [
      "prepare with a seed that numpy does not take",
      ["prepare", "--input=train.csv", "--output_dir=out", "--seed=4294967296"],
      /--seed=4294967296: expected a whole number of at least 0 and at most 4294967295/,
    ],
    [
      "prepare with all for training",
      ["prepare", "--input=train.csv", "--output_dir=out", "--train_fraction=1"],
      /--train_fraction=1: expected a number above 0 and below 1/,
    ],
    [
      "prepare from a file without a name",
      ["prepare", "--input=", "--output_dir=out"],
      /--input needs a value/,
    ],
    ["setup for no device", ["setup", "--device=gpu"], /--device=gpu: expected one of auto, cpu, cuda/],
    ["setup for a device not named", ["setup", "--device"], /--device needs a value/],
    ["a flag of another command", ["eval", "--lora_r=4"], /unknown flag --lora_r/],
  ];
  for (const [title, args, message, hint] of cases) {
    it(title, async () => {
      const outcome = await runHere(args);
      expectRefusal(outcome, /there is no file/.test(outcome.stderr) ? 1 : 2, message, hint);
    });
  }
});

describe("--json", () => {
  it("gives the error as an object on stdout too", async () => {
    const outcome = await runHere([...trainArgs({ learning_rate: "0" }), "--json"]);
    expect(JSON.parse(outcome.stdout)).toMatchObject({ event: "error", code: "USAGE" });
    expect(outcome.code).toBe(2);
  });
});
