import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openModelFolder } from "../../../lib/model/folder.js";
import { formatQuantizedConfig, parseQuantizationConfig } from "../../../lib/model/quantization.js";
import { wholeStorage } from "../../../lib/model/storage.js";
import { flagLabel } from "../../../lib/train/options/option-value.js";
import { storageRequest, type WeightOptionValues } from "../../../lib/train/options/weight-options.js";
import { copyQuantModel, quantPath } from "../../support/quant-golden.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
let count = 0;

type Config = Record<string, unknown>;
const golden = (name: string, change?: (config: Config) => void) =>
  copyQuantModel(name, temporary.path(`model-${count++}`), change);
const quantizationOf = (config: Config) => config.quantization_config as Config;

async function refused(folder: string): Promise<unknown> {
  return openModelFolder(folder).then(
    () => expect.fail("it was accepted"),
    (error) => error,
  );
}

describe("a folder that transformers and bitsandbytes wrote", () => {
  const held = { blockSize: 64, doubleQuant: false, outlierFraction: 0, outlierThreshold: 6 };
  for (const [name, storage] of [
    ["nf4", { ...held, format: "nf4" }],
    ["nf4-double", { ...held, format: "nf4", doubleQuant: true }],
    ["fp4", { ...held, format: "fp4" }],
    ["int8", { ...held, format: "int8" }],
    ["model", undefined],
  ] as const) {
    it(`is known for what it is: ${name}`, async () => {
      const model = await openModelFolder(golden(name));
      expect(model.quantized).toEqual(storage);
      expect(model.hasPooler).toBe(true);
    });
  }

  it("is taken at its tensors' word where its config says another type, as transformers takes it", async () => {
    const folder = golden("nf4", (config) => {
      Object.assign(quantizationOf(config), { bnb_4bit_quant_type: "fp4", bnb_4bit_use_double_quant: true });
    });
    expect((await openModelFolder(folder)).quantized).toMatchObject({ format: "nf4", doubleQuant: false });
  });

  it("keeps the threshold of its config", async () => {
    const folder = golden("int8", (config) => {
      quantizationOf(config).llm_int8_threshold = 4.5;
    });
    expect((await openModelFolder(folder)).quantized).toMatchObject({ outlierThreshold: 4.5 });
  });
});

describe("a folder is refused", () => {
  const cases: [title: string, model: string, change: (config: Config) => void, error: object][] = [
    [
      "by the name of another method",
      "nf4",
      (config) => {
        quantizationOf(config).quant_method = "gptq";
      },
      { code: "MODEL_UNSUPPORTED", message: expect.stringContaining("by gptq") },
    ],
    [
      "with bytes stored as another type",
      "nf4",
      (config) => {
        quantizationOf(config).bnb_4bit_quant_storage = "bfloat16";
      },
      { code: "MODEL_UNSUPPORTED", message: expect.stringContaining('bnb_4bit_quant_storage "bfloat16"') },
    ],
    [
      "of both sizes at once",
      "nf4",
      (config) => {
        quantizationOf(config).load_in_8bit = true;
      },
      { code: "MODEL_CORRUPT", message: expect.stringContaining("both") },
    ],
    [
      "whose config says another size than its tensors have",
      "int8",
      (config) => {
        Object.assign(quantizationOf(config), { load_in_8bit: false, load_in_4bit: true });
      },
      { code: "MODEL_CORRUPT", message: expect.stringMatching(/of 4 bits, .* weights of 8 bits/) },
    ],
    [
      "whose config does not say that it is quantised",
      "fp4",
      (config) => {
        delete config.quantization_config;
      },
      { code: "MODEL_CORRUPT", message: expect.stringContaining("no quantization_config") },
    ],
    [
      "whose weights are not what its config says",
      "model",
      (config) => {
        config.quantization_config = { load_in_4bit: true };
      },
      { code: "MODEL_CORRUPT", message: expect.stringContaining("not quantised") },
    ],
    [
      "with a threshold that is none",
      "int8",
      (config) => {
        quantizationOf(config).llm_int8_threshold = -1;
      },
      { code: "MODEL_CORRUPT", message: expect.stringContaining("llm_int8_threshold") },
    ],
  ];
  for (const [title, model, change, error] of cases) {
    it(title, async () => expect(await refused(golden(model, change))).toMatchObject(error));
  }

  it("whose quantisation state has a block size that is none", async () => {
    const folder = golden("nf4");
    const file = join(folder, "model.safetensors");
    const bytes = readFileSync(file);
    const states = bytes.toString("latin1").split('"blocksize": 64').length - 1;
    expect(states).toBeGreaterThan(0);
    writeFileSync(file, bytes.toString("latin1").replaceAll('"blocksize": 64', '"blocksize": 65'), "latin1");
    expect(await refused(folder)).toMatchObject({
      code: "QUANT_STATE",
      message: expect.stringMatching(/quant_state\.bitsandbytes__nf4.*found 65/),
    });
  });
});

it("old configs without a name for the method are bitsandbytes'", () => {
  const parsed = parseQuantizationConfig({ quantization_config: { load_in_8bit: true } }, "config.json");
  expect(parsed).toEqual({ bits: 8, outlierThreshold: 6 });
});

describe("modules that transformers skipped", () => {
  const parse = (skipped: unknown) => {
    const quantization_config = { load_in_4bit: true, llm_int8_skip_modules: skipped };
    return parseQuantizationConfig({ quantization_config }, "config.json");
  };

  for (const skipped of [null, undefined, [], ["pooler"], ["lm_head", "classifier", "bert.pooler"]]) {
    it(`are no matter outside the encoder: ${JSON.stringify(skipped)}`, () => {
      expect(parse(skipped)).toMatchObject({ bits: 4 });
    });
  }

  for (const [skipped, code] of [
    [["query"], "MODEL_UNSUPPORTED"],
    [["pooler", "encoder.layer.0"], "MODEL_UNSUPPORTED"],
    [7, "MODEL_CORRUPT"],
    [[7], "MODEL_CORRUPT"],
  ] as const) {
    it(`are refused within it: ${JSON.stringify(skipped)}`, () => {
      expect(() => parse(skipped)).toThrow(
        expect.objectContaining({ code, message: expect.stringContaining("llm_int8_skip_modules") }),
      );
    });
  }
});

describe("config.json of a quantised model", () => {
  const read = (name: string) => readFileSync(join(quantPath(name), "config.json"), "utf8");

  for (const [name, values] of [
    ["nf4", { load_in_4bit: true }],
    ["nf4-double", { load_in_4bit: true, bnb_4bit_use_double_quant: true }],
    ["fp4", { load_in_4bit: true, bnb_4bit_quant_type: "fp4" }],
    ["int8", { load_in_8bit: true }],
  ] satisfies [string, WeightOptionValues][]) {
    it(`is to the letter what transformers writes: ${name}`, () => {
      const request = storageRequest(values, flagLabel);
      const storage = wholeStorage(request, request.format ?? "4bit");
      // Python writes rates as floats, which JSON.parse cannot tell from whole numbers.
      const text = formatQuantizedConfig(JSON.parse(read("model")), storage, true);
      expect(text.trimEnd()).toBe(read(name).trimEnd());
    });
  }

  it("keeps transformers from making a pooler that the model has not", () => {
    const request = storageRequest({ load_in_4bit: true }, flagLabel);
    const config = JSON.parse(formatQuantizedConfig({}, wholeStorage(request, "nf4"), false));
    expect(config.quantization_config.llm_int8_skip_modules).toEqual(["pooler"]);
  });
});
