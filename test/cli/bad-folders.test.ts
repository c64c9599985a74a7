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
import { describe, expect, it } from "vitest";
import { refusals } from "../support/refusals.js";
import { writeTinyModel } from "../support/tiny-model.js";

const { temporary, runHere, trainArgs, expectRefusal } = refusals();

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

describe("eval and encode", () => {
  it("tell a folder that is not there as one", async () => {
    const evaluate = ["eval", "--dataset_name=train.csv"];
    const where = /Paths are taken from the current folder/;
    for (const [flags, name] of [
      [["--model_name_or_path=./none"], "./none"],
      [["--model_name_or_path=model", "--adapter=none"], "none"],
      [["--model_name_or_path=model", "--adapter=./none"], "./none"],
    ] as const)
      expectRefusal(
        await runHere([...evaluate, ...flags]),
        1,
        new RegExp(`there is no folder ${name}$`),
        where,
      );
  });

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
