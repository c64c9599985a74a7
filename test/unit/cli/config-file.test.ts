import { mkdirSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readConfigFile } from "../../../lib/cli/config-file.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();

function write(text: string, name = "run.yaml"): string {
  writeFileSync(temporary.path(name), text);
  return temporary.path(name);
}

describe("a configuration file", () => {
  it("gives the values of YAML and of JSON under the names of the flags, and where they stand", () => {
    const yaml = write(
      [
        "# the article's run",
        "learning-rate: 5e-4",
        "num_train_epochs: 3",
        "mixed_precision: no",
        'prefix: ""',
        "use_peft: true",
        "dtype: float16",
        "model: models/e5-small-v2",
        "lora_target_modules: [query, value]",
        "bnb_4bit_compute_dtype: float32",
      ].join("\r\n"),
    );
    const { values, place } = readConfigFile(yaml);
    expect(values).toEqual({
      learning_rate: 5e-4,
      num_train_epochs: 3,
      mixed_precision: "no",
      prefix: "",
      use_peft: true,
      torch_dtype: "float16",
      model_name_or_path: "models/e5-small-v2",
      lora_target_modules: ["query", "value"],
    });
    expect(place("prefix")).toBe(`${yaml}:5`);
    const json = write('\uFEFF{\n\t"seed": 7,\n\t"output_dir": "out"\n}\n', "run.json");
    expect(readConfigFile(json).values).toEqual({ seed: 7, output_dir: "out" });
    expect(readConfigFile(json).place("output_dir")).toBe(`${json}:3`);
  });

  const refused: [title: string, text: string, line: number | undefined, message: RegExp, hint?: RegExp][] = [
    [
      "an unknown name",
      "seed: 1\nlearning_rat: 1",
      2,
      /unknown option learning_rat$/,
      /Did you mean learning_rate\?/,
    ],
    ["a name set twice", "seed: 1\nseed: 2", 2, /unique/],
    ["a name and its alias", "dtype: float32\ntorch_dtype: float16", 2, /set already, at .*:1$/],
    ["an object", "prefix:\n  query: a", 1, /prefix: expected a value or a list of values/],
    ["a list of lists", "lora_target_modules: [[a]]", 1, /expected a value or a list/],
    ["broken YAML", "seed: 1\nprefix: [a", 2, /./],
    ["broken JSON", '{"seed": 1}{', 1, /./],
    ["an unknown tag", "seed: !python 3", 1, /tag/],
    ["no names", "- seed", undefined, /expected names of flags and their values/],
    ["nothing", "", undefined, /expected names of flags/],
    [
      "a model's config.json",
      '{"model_type": "bert"}',
      undefined,
      /is the configuration of a model/,
      /train_config\.json/,
    ],
    [
      "an adapter_config.json",
      '{"peft_type": "LORA", "r": 8}',
      undefined,
      /is the configuration of an adapter/,
    ],
    ["accelerate's", "compute_environment: LOCAL_MACHINE", undefined, /is a configuration of accelerate/],
  ];
  for (const [title, text, line, message, hint = /./] of refused) {
    it(`is refused with ${title}`, () => {
      const file = write(text);
      const place = line === undefined ? file : `${file}:${line}: `;
      expect(() => readConfigFile(file)).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringMatching(message) }),
      );
      expect(() => readConfigFile(file)).toThrow(place);
      if (hint.source !== ".") {
        expect(() => readConfigFile(file)).toThrow(
          expect.objectContaining({ hint: expect.stringMatching(hint) }),
        );
      }
    });
  }

  it("is refused with an alias, which could grow without end", () => {
    expect(() => readConfigFile(write("prefix: &a x\nquestion1_prefix: *a"))).toThrow(/:2: /);
  });

  it("is refused with what is not there yet", () => {
    expect(() => readConfigFile(write("seed: 1\nbnb_4bit_compute_dtype: float16"))).toThrow(
      expect.objectContaining({
        code: "NOT_YET_AVAILABLE",
        message: expect.stringMatching(/:2: bnb_4bit_compute_dtype is not/),
      }),
    );
  });

  it("may hold objects for the options that take one, as a run saves them", () => {
    const pattern = '{"lora_rank_pattern": {"query": 4}, "lr_scheduler_kwargs": {"num_cycles": 2}}';
    expect(readConfigFile(write(pattern)).values).toEqual({
      lora_rank_pattern: { query: 4 },
      lr_scheduler_kwargs: { num_cycles: 2 },
    });
    expect(readConfigFile(write("lora_alpha_pattern:\n  layer.0.output.dense: 3")).values).toEqual({
      lora_alpha_pattern: { "layer.0.output.dense": 3 },
    });
    expect(() => readConfigFile(write("lora_rank_pattern: {query: [1]}"))).toThrow(/expected a value/);
  });

  it("that is missing beside the one that a run saved is told apart", () => {
    mkdirSync(temporary.path("out"));
    writeFileSync(temporary.path("out", "train_config.json"), "{}");
    expect(() => readConfigFile(temporary.path("out", "config.json"))).toThrow(
      expect.objectContaining({
        code: "FILE_NOT_FOUND",
        hint: expect.stringMatching(/train_config\.json\?$/),
      }),
    );
  });
});
