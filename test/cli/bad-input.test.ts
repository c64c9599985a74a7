import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type Outcome, runCli } from "../support/cli.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
/** Whatever is wrong has to be found before libtorch is looked for: naming none would otherwise be the error. */
const env = { PEFT_TRAIN_LIBTORCH: "/nonexistent/libtorch", HF_HUB_OFFLINE: "1", HF_TOKEN: "" };
const HEADER = "id,question1,question2,is_duplicate";

beforeAll(() => {
  writeTinyModel(temporary.path("model"));
  writePairs(temporary.path("train.csv"), 20);
});

const runHere = (args: string[]): Promise<Outcome> => runCli(args, { cwd: temporary.path(), env });

function trainArgs(changes: Record<string, string> = {}): string[] {
  const flags = { model_name_or_path: "model", dataset_name: "train.csv", output_dir: "out", ...changes };
  return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
}

/** One line `error: ...`, one line `hint: ...` or none, nothing on stdout, and nothing left behind. */
function expectRefusal(outcome: Outcome, code: number, message: RegExp, hint?: RegExp): void {
  const lines = outcome.stderr.trimEnd().split("\n");
  const errors = lines.filter((line) => line.startsWith("error: "));
  expect(errors, outcome.stderr).toHaveLength(1);
  expect(errors[0]).toMatch(message);
  if (hint !== undefined) expect(outcome.stderr).toMatch(hint);
  const others = lines.filter((line) => !/^(error: |hint: |Reading )/.test(line));
  expect(others).toEqual([]);
  expect(outcome.stdout).toBe("");
  expect(outcome.code).toBe(code);
  expect(existsSync(temporary.path("out"))).toBe(false);
  expect(readdirSync(temporary.path()).filter((name) => name.startsWith("."))).toEqual([]);
}

describe("data that cannot be trained on is refused in one line", () => {
  const cases: [title: string, content: string | Buffer | undefined, message: RegExp][] = [
    ["a missing file", undefined, /there is no file bad\.csv/],
    ["an empty file", "", /bad\.csv/],
    ["a header alone", `${HEADER}\n`, /bad\.csv has a header and no rows/],
    ["a missing column", "id,question1,question2,is_dup\n1,a,b,1\n", /no column "is_duplicate".*is_dup/],
    ["a label that is not 0 or 1", `${HEADER}\n1,a,b,1\n2,c,d,2\n`, /row 3: expected 0 or 1.*"2"/],
    ["a label that is a word", `${HEADER}\n1,a,b,true\n`, /row 2: expected 0 or 1.*"true"/],
    ["a missing label", `${HEADER}\n1,a,b,\n`, /row 2: expected 0 or 1.*""/],
    ["a ragged row", `${HEADER}\n1,a,b,1\n2,c,d,0,e\n`, /row 3: expected 4 fields.*found 5/],
    ["a short row", `${HEADER}\n1,a,b,1\n2,c\n`, /row 3: expected 4 fields.*found 2/],
    [
      "an unterminated quote",
      `${HEADER}\n1,a,b,1\n2,"c,d,0\n3,e,f,1\n`,
      /row 3: the quoted field.*never closed/,
    ],
    ["one class only", `${HEADER}\n1,a,b,1\n2,c,d,1\n`, /all 2 labels in column is_duplicate are 1/],
    ["bytes that are not UTF-8", Buffer.from(`${HEADER}\n1,caf\xe9,b,1\n`, "latin1"), /byte 0xE9/],
    ["UTF-16", Buffer.from(`\ufeff${HEADER}\n`, "utf16le"), /UTF-16/],
  ];
  for (const [title, content, message] of cases) {
    it(title, async () => {
      if (content !== undefined) writeFileSync(temporary.path("bad.csv"), content);
      else rmSync(temporary.path("bad.csv"), { force: true });
      expectRefusal(await runHere(trainArgs({ dataset_name: "bad.csv" })), 1, message);
    });
  }

  it("in the evaluation file too, before training", async () => {
    writeFileSync(temporary.path("bad.csv"), `${HEADER}\n1,a,b,0\n`);
    expectRefusal(await runHere(trainArgs({ eval_dataset_name: "bad.csv" })), 1, /bad\.csv: all 1 labels/);
    rmSync(temporary.path("bad.csv"));
    expectRefusal(await runHere(trainArgs({ eval_dataset_name: "bad.csv" })), 1, /there is no file bad\.csv/);
  });
});

describe("a model that cannot be run is refused in one line", () => {
  const broken = (change: (folder: string) => void): string => {
    const folder = temporary.path("broken");
    rmSync(folder, { recursive: true, force: true });
    change(writeTinyModel(folder));
    return "broken";
  };
  const cases: [string, (folder: string) => void, RegExp, RegExp?][] = [
    ["no safetensors file", (f) => rmSync(join(f, "model.safetensors")), /expected model\.safetensors/],
    ["a truncated one", (f) => truncateSync(join(f, "model.safetensors"), 20_000), /cut short/],
    ["one cut in its header", (f) => truncateSync(join(f, "model.safetensors"), 100), /cut short/],
    [
      "one that is none",
      (f) => writeFileSync(join(f, "model.safetensors"), "hello"),
      /not a valid safetensors/,
    ],
    [
      "one with a header of rubbish",
      (f) => {
        const file = join(f, "model.safetensors");
        writeFileSync(file, readFileSync(file).fill("x", 8, 40));
      },
      /header is not JSON/,
    ],
    [
      "a config that is not BERT",
      (f) => writeFileSync(join(f, "config.json"), '{"model_type":"roberta"}'),
      /expected a model_type of "bert", found "roberta"/,
      /hint: Supported are BERT encoders.*e5-small-v2/,
    ],
    [
      "an activation that is not erf GELU",
      (f) => writeFileSync(join(f, "config.json"), '{"model_type":"bert","hidden_act":"relu"}'),
      /hidden_act/,
    ],
    ["no tokenizer", (f) => rmSync(join(f, "tokenizer.json")), /expected tokenizer\.json/],
    [
      "a tokenizer cut short",
      (f) => truncateSync(join(f, "tokenizer.json"), 500),
      /tokenizer\.json is not valid JSON/,
    ],
  ];
  for (const [title, change, message, hint] of cases) {
    it(title, async () => {
      expectRefusal(await runHere(trainArgs({ model_name_or_path: broken(change) })), 1, message, hint);
    });
  }

  it("a name on the Hub without a network", async () => {
    expectRefusal(
      await runHere(trainArgs({ model_name_or_path: "intfloat/e5-small-v2" })),
      1,
      /there is no folder intfloat\/e5-small-v2, and HF_HUB_OFFLINE is set/,
      /hint: Leave HF_HUB_OFFLINE out/,
    );
  });
});

describe("an output folder that cannot be written is refused in one line", () => {
  it("a file", async () => {
    writeFileSync(temporary.path("taken"), "x");
    expectRefusal(await runHere(trainArgs({ output_dir: "taken" })), 1, /--output_dir=taken is a file/);
  });

  it("a folder that holds something else, which stays as it was", async () => {
    mkdirSync(temporary.path("full"));
    writeFileSync(temporary.path("full", "thesis.tex"), "x");
    expectRefusal(
      await runHere(trainArgs({ output_dir: "full" })),
      1,
      /not empty: it holds thesis\.tex/,
      /hint: /,
    );
    expect(readdirSync(temporary.path("full"))).toEqual(["thesis.tex"]);
  });

  it("one that nobody may write to, before the data is read", async () => {
    // Not even root may make a folder in /sys.
    const outcome = await runHere(trainArgs({ output_dir: "/sys/peft-train/out", dataset_name: "none.csv" }));
    expectRefusal(outcome, 1, /cannot write \/sys\/peft-train/);
  });
});

describe("a folder where none can be made, in /proc, is refused and not waited for", () => {
  // Node's own recursive mkdir never comes back from there.
  for (const folder of ["/proc/peft-train", "/proc/peft-train/deeper/out"]) {
    it(folder, async () => {
      expectRefusal(
        await runHere(trainArgs({ output_dir: folder })),
        1,
        new RegExp(`cannot write ${folder}: no file or folder can be made there`),
      );
    });
  }

  it("by prepare and quantize too", async () => {
    const small = await runHere(["quantize", "model", "--out=/proc/peft-train/small"]);
    expectRefusal(small, 1, /cannot write \/proc\/peft-train\/small: no file/);
    const raw = ["prepare", "--input=train.csv", "--output_dir=/proc/peft-train/quora"];
    expectRefusal(await runHere(raw), 1, /cannot write \/proc\/peft-train\/quora: no file/);
  });
});

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

describe("the article's command line", () => {
  const article =
    "--mixed_precision=fp8 --dataset_name=train.csv --max_length=70 --model_name_or_path=intfloat/e5-small-v2 --per_device_train_batch_size=64 --per_device_eval_batch_size=128 --learning_rate=5e-4 --weight_decay=0.0 --num_train_epochs 3 --gradient_accumulation_steps=1 --output_dir=out --seed=42 --with_tracking --report_to=wandb --use_peft --checkpointing_steps epoch";

  it("as it stands runs as far as the model", async () => {
    const given = article.replace("fp8", "fp16").replace("intfloat/e5-small-v2", "model");
    const outcome = await runHere(given.replace("max_length=70", "max_length=60").split(" "));
    expectRefusal(outcome, 1, /PEFT_TRAIN_LIBTORCH=\/nonexistent\/libtorch/);
  });

  it("is told exactly what to leave out, and what is left then runs as far as the model", async () => {
    const outcome = await runHere(article.split(" "));
    expectRefusal(outcome, 2, /--mixed_precision=fp8 is not available in this version$/);
    const rest = /Leave it out: npx peft-train (.*)$/m.exec(outcome.stderr)?.[1] ?? "";
    expect(rest.split(" ")).toEqual(article.split(" ").filter((arg) => !/mixed_precision/.test(arg)));
    const given = rest.replace("intfloat/e5-small-v2", "model").replace("max_length=70", "max_length=60");
    // All that is missing now is libtorch.
    expectRefusal(await runHere(given.split(" ")), 1, /PEFT_TRAIN_LIBTORCH=\/nonexistent\/libtorch/);
  });

  it("in kebab case, and with values as words of their own, is the same", async () => {
    const kebab = article.replaceAll(/--[\w]+/g, (flag) => flag.replaceAll("_", "-")).replaceAll("=", " ");
    const outcome = await runHere(kebab.split(" "));
    expectRefusal(outcome, 2, /--mixed_precision=fp8 is not available/);
    expect(outcome.stderr).not.toMatch(/npx peft-train.*fp8/);
    expect(outcome.stderr).toMatch(/npx peft-train.*--with_tracking/);
  });

  for (const flag of ["--bnb_4bit_compute_dtype=float16", "--mixed_precision=fp8"]) {
    it(`is not there yet: ${flag}`, async () => {
      const name = flag.replace(/=.*/, "");
      expectRefusal(
        await runHere([...trainArgs(), flag]),
        2,
        new RegExp(`${name}.*not available in this version`),
      );
    });
  }

  it("never repeats a token", async () => {
    for (const token of [["--hub_token", "hf_secret"], ["--hub-token=hf_secret"]]) {
      const outcome = await runHere([...trainArgs(), "--mixed_precision=fp8", ...token]);
      expectRefusal(outcome, 2, /--mixed_precision=fp8 is not available/, /--hub_token(=| )\.\.\./);
      expect(outcome.stderr).not.toContain("hf_secret");
    }
  });

  it("may spell out that such features are off", async () => {
    const off = [
      "--no-with_tracking",
      "--report_to=none",
      "--fp16=false",
      "--mixed_precision=no",
      "--push-to-hub=false",
    ];
    expectRefusal(await runHere([...trainArgs(), ...off]), 1, /PEFT_TRAIN_LIBTORCH/);
  });
});

describe("what Python's argparse takes is taken", () => {
  for (const rest of [
    ["--lora_target_modules", "query", "key", "value", "--use_peft", "True"],
    ["--use-peft=True", "--lora-target-modules", "query,", "key,", "value"],
    ["--lora_target_modules=query, key, value,", "--use_peft", "true"],
  ]) {
    it(rest.join(" "), async () => {
      // All that is missing is libtorch.
      expectRefusal(await runHere([...trainArgs(), ...rest]), 1, /PEFT_TRAIN_LIBTORCH/);
    });
  }

  it("--use_peft False is taken as what it means", async () => {
    const outcome = await runHere([...trainArgs(), "--use_peft", "False", "--lora_r=4"]);
    expectRefusal(outcome, 2, /--lora_r is of a LoRA adapter, and --use_peft=false trains none/);
  });
});

describe("files as other systems write them are read", () => {
  it("with a byte order mark and CRLF", async () => {
    const text = readFileSync(temporary.path("train.csv"), "utf8").replaceAll("\n", "\r\n");
    writeFileSync(temporary.path("windows.csv"), `\ufeff${text}`);
    expectRefusal(await runHere(trainArgs({ dataset_name: "windows.csv" })), 1, /PEFT_TRAIN_LIBTORCH/);
  });
});

describe("--json", () => {
  it("gives the error as an object on stdout too", async () => {
    const outcome = await runHere([...trainArgs({ learning_rate: "0" }), "--json"]);
    expect(JSON.parse(outcome.stdout)).toMatchObject({ event: "error", code: "USAGE" });
    expect(outcome.code).toBe(2);
  });
});

describe("eval and encode", () => {
  it("refuse an adapter of another base, naming both hashes", async () => {
    writeTinyModel(temporary.path("other"), { seed: 2 });
    const adapter = temporary.path("adapter");
    mkdirSync(adapter);
    writeFileSync(join(adapter, "adapter_config.json"), '{"peft_type":"LORA","target_modules":["query"]}');
    const record = {
      format: 1,
      peft_train_version: "0.1.0",
      base_model: "model",
      base_weights_sha256: "0".repeat(64),
      tokenizer_sha256: "0".repeat(64),
      question1_prefix: "",
      question2_prefix: "",
      pooling: "mean",
      normalize: true,
      max_length: 64,
      threshold: null,
      seed: 1,
      step: 1,
      epoch: 1,
    };
    writeFileSync(join(adapter, "peft_train.json"), JSON.stringify(record));
    copyFileSync(temporary.path("other", "model.safetensors"), join(adapter, "adapter_model.safetensors"));
    for (const rest of [
      ["eval", "--dataset_name=train.csv"],
      ["encode", "--input=train.csv", "--column=question1", "--output=v.npy"],
    ]) {
      const outcome = await runHere([...rest, "--model_name_or_path=other", "--adapter=adapter"]);
      expectRefusal(outcome, 1, /SHA-256 0{64}; those of other have [0-9a-f]{64}/);
      expect(existsSync(temporary.path("v.npy"))).toBe(false);
    }
  });
});
