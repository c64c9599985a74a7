import { describe, expect, it } from "vitest";
import type { ModelFolder } from "../../../lib/model/folder.js";
import { chooseStorage, describeStorage } from "../../../lib/model/storage.js";
import type { WeightStorage } from "../../../lib/native/types.js";
import { flagLabel } from "../../../lib/train/options/option-value.js";
import { resolveOptions, resolveTrainOptions } from "../../../lib/train/options/options.js";
import { type QuantizeSettings, quantizeRequest } from "../../../lib/train/options/quantize-settings.js";
import { storageRequest, type WeightOptionValues } from "../../../lib/train/options/weight-options.js";

const REQUIRED = { model_name_or_path: "m", dataset_name: "d.csv", output_dir: "out" };
const held: WeightStorage = {
  format: "nf4",
  blockSize: 64,
  doubleQuant: false,
  outlierFraction: 0,
  outlierThreshold: 6,
};
const shape = { hiddenSize: 32, intermediateSize: 64 };
const folder = (quantized?: WeightStorage) => ({ name: "m", shape, quantized }) as ModelFolder;
const choose = (values: WeightOptionValues, quantized?: WeightStorage) =>
  chooseStorage(storageRequest(values, flagLabel), folder(quantized));

describe("options of the frozen weights", () => {
  for (const [values, storage] of [
    [{}, undefined],
    [{ torch_dtype: "float32" }, undefined],
    [{ torch_dtype: "bfloat16" }, { ...held, format: "bfloat16" }],
    [{ load_in_4bit: true }, held],
    [
      {
        load_in_4bit: true,
        bnb_4bit_quant_type: "fp4",
        bnb_4bit_use_double_quant: true,
        quant_block_size: 128,
        outlier_fraction: 0.005,
      },
      { ...held, format: "fp4", doubleQuant: true, blockSize: 128, outlierFraction: 0.005 },
    ],
    [{ load_in_8bit: true }, { ...held, format: "int8" }],
    [
      { load_in_8bit: true, outlier_threshold: 0 },
      { ...held, format: "int8", outlierThreshold: 0 },
    ],
    [{ compute: "float32" }, undefined],
    [{ compute: "int8" }, { ...held, format: "int8", int8Gradient: true }],
    [
      { compute: "int8", load_in_8bit: true, outlier_threshold: 3 },
      { ...held, format: "int8", outlierThreshold: 3, int8Gradient: true },
    ],
  ] as [WeightOptionValues, WeightStorage | undefined][]) {
    it(`${JSON.stringify(values)} hold them as ${describeStorage(storage)}`, () => {
      expect(choose(values)).toEqual(storage);
    });
  }

  for (const [given, message] of [
    [{ load_in_4bit: true, load_in_8bit: true }, "--load_in_4bit and --load_in_8bit are two ways"],
    [{ load_in_4bit: true, torch_dtype: "float16" }, "--torch_dtype and --load_in_4bit are two ways"],
    [{ load_in_8bit: true, torch_dtype: "float16" }, "--torch_dtype and --load_in_8bit are two ways"],
    [{ bnb_4bit_quant_type: "nf4" }, "--bnb_4bit_quant_type is for 4-bit weights"],
    [{ bnb_4bit_use_double_quant: true }, "--bnb_4bit_use_double_quant is for 4-bit weights"],
    [{ quant_block_size: 64 }, "--quant_block_size is for 4-bit weights"],
    [
      { load_in_8bit: true, bnb_4bit_use_double_quant: false },
      "--bnb_4bit_use_double_quant is for 4-bit weights",
    ],
    [{ load_in_8bit: true, outlier_fraction: 0 }, "--outlier_fraction is for 4-bit weights"],
    [{ load_in_8bit: true, outlier_fraction: 0.01 }, "--outlier_fraction is for 4-bit weights"],
    [{ load_in_4bit: true, outlier_threshold: 6 }, "--outlier_threshold is for 8-bit weights"],
    [{ bnb_4bit_quant_type: "nf5" }, "--bnb_4bit_quant_type=nf5: expected one of nf4, fp4"],
    [{ load_in_4bit: true, quant_block_size: 16 }, "=16: expected a power of two from 32 to 4096"],
    [{ load_in_4bit: true, quant_block_size: 96 }, "=96: expected a power of two from 32 to 4096"],
    [{ load_in_4bit: true, quant_block_size: 8192 }, "=8192: expected a power of two from 32 to 4096"],
    [{ load_in_4bit: true, outlier_fraction: 0.2 }, "=0.2: expected a number of at least 0 and at most 0.1"],
    [{ load_in_4bit: true, outlier_fraction: -0.1 }, "--outlier_fraction=-0.1: expected"],
    [{ load_in_8bit: true, outlier_threshold: -1 }, "--outlier_threshold=-1: expected"],
    [{ compute: "int8", load_in_4bit: true }, "--compute=int8 holds frozen matrices in 8 bits, not as"],
    [{ compute: "int8", torch_dtype: "float32" }, "not as --torch_dtype asks"],
    [{ compute: "int4" }, "--compute=int4: expected one of float32, int8"],
    [{ torch_dtype: "float64" }, "--torch_dtype=float64: expected one of float32, float16, bfloat16"],
  ] as const) {
    it(`${JSON.stringify(given)} is refused before anything is read`, () => {
      expect(() => resolveOptions({ ...REQUIRED, ...given })).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(message) }),
      );
    });
  }

  it("are the library's too", () => {
    const options = { modelNameOrPath: "m", datasetName: "d", outputDir: "o" };
    expect(resolveTrainOptions({ ...options, loadIn4bit: true, quantBlockSize: 32 })).toMatchObject({
      loadIn4bit: true,
      bnb4bitQuantType: null,
      quantBlockSize: 32,
      torchDtype: null,
    });
    expect(() => resolveTrainOptions({ ...options, loadIn4bit: true, loadIn8bit: true })).toThrow(
      "loadIn4bit and loadIn8bit are two ways",
    );
  });

  it("alone cannot ask for a threshold where weights have no 8 bits", () => {
    expect(() => choose({ outlier_threshold: 5 })).toThrow("--outlier_threshold is for 8-bit weights");
  });
});

describe("a folder that is quantised already", () => {
  const double: WeightStorage = { ...held, format: "fp4", doubleQuant: true, blockSize: 128 };
  const sparse: WeightStorage = { ...held, outlierFraction: 5 / 1024 }; // of matrices of 32 x 32
  const int8: WeightStorage = { ...held, format: "int8" };

  for (const [values, quantized] of [
    [{}, held],
    [{ load_in_4bit: true }, held],
    [{ load_in_4bit: true }, double],
    [{ load_in_4bit: true, bnb_4bit_quant_type: "fp4", quant_block_size: 128 }, double],
    [{ load_in_4bit: true, outlier_fraction: 0.005 }, sparse],
    [{ load_in_4bit: true, outlier_fraction: 5 / 1024 }, sparse],
    [{ load_in_4bit: true, bnb_4bit_use_double_quant: true }, double],
    [{ load_in_4bit: true, bnb_4bit_use_double_quant: false }, held],
    [{ load_in_8bit: true }, int8],
  ] as [WeightOptionValues, WeightStorage][]) {
    it(`may be asked for what it is: ${JSON.stringify(values)} of ${describeStorage(quantized)}`, () => {
      expect(choose(values, quantized)).toEqual(quantized);
    });
  }

  for (const threshold of [5, 6]) {
    it(`has no threshold of ${threshold} in 4 bits`, () => {
      expect(() => choose({ outlier_threshold: threshold }, held)).toThrow(
        "--outlier_threshold is for 8-bit weights",
      );
    });
  }

  it("takes another threshold, which is no property of its weights", () => {
    expect(choose({ outlier_threshold: 3 }, int8)).toEqual({ ...int8, outlierThreshold: 3 });
  });

  for (const [values, quantized, flag] of [
    [{ load_in_8bit: true }, held, "--load_in_8bit"],
    [{ load_in_8bit: true, outlier_threshold: 5 }, held, "--load_in_8bit"],
    [{ load_in_4bit: true }, int8, "--load_in_4bit"],
    [{ load_in_4bit: true, bnb_4bit_quant_type: "fp4" }, held, "--bnb_4bit_quant_type"],
    [{ load_in_4bit: true, quant_block_size: 32 }, held, "--quant_block_size"],
    [{ load_in_4bit: true, bnb_4bit_use_double_quant: true }, held, "--bnb_4bit_use_double_quant"],
    [{ load_in_4bit: true, bnb_4bit_use_double_quant: false }, double, "--bnb_4bit_use_double_quant"],
    [{ load_in_4bit: true, outlier_fraction: 0.01 }, sparse, "--outlier_fraction"],
    // A weight of the smallest matrix more, and any less.
    [{ load_in_4bit: true, outlier_fraction: 6 / 1024 }, sparse, "--outlier_fraction"],
    [{ load_in_4bit: true, outlier_fraction: 0.0048 }, sparse, "--outlier_fraction"],
    [{ load_in_4bit: true, outlier_fraction: 0 }, sparse, "--outlier_fraction"],
    [{ load_in_4bit: true, outlier_fraction: 0.01 }, held, "--outlier_fraction"],
    [{ torch_dtype: "float16" }, held, "--torch_dtype"],
    [{ torch_dtype: "float32" }, int8, "--torch_dtype"],
  ] as [WeightOptionValues, WeightStorage, string][]) {
    it(`is not quantised again: ${JSON.stringify(values)} of ${describeStorage(quantized)}`, () => {
      expect(() => choose(values, quantized)).toThrow(
        expect.objectContaining({
          code: "ALREADY_QUANTIZED",
          message: `${flag}: the weights of m are quantised already, as ${describeStorage(quantized)}`,
          hint: expect.stringContaining("Leave it out"),
        }),
      );
    });
  }
});

describe("the library's quantize", () => {
  const chooseBy = (settings: QuantizeSettings["type"] | QuantizeSettings | undefined, dtype?: unknown) =>
    chooseStorage(quantizeRequest(settings, dtype), folder());

  it("is a type or settings under names of their own", () => {
    expect(chooseBy("fp4")).toEqual({ ...held, format: "fp4" });
    expect(chooseBy({ type: "nf4", blockSize: 32, doubleQuant: true, outlierFraction: 0.01 })).toEqual({
      ...held,
      blockSize: 32,
      doubleQuant: true,
      outlierFraction: 0.01,
    });
    expect(chooseBy({ type: "int8", outlierThreshold: 2 })).toEqual({
      ...held,
      format: "int8",
      outlierThreshold: 2,
    });
    expect(chooseBy(undefined, "float16")).toEqual({ ...held, format: "float16" });
  });

  for (const [settings, message] of [
    ["nf5", 'quantize="nf5": expected one of nf4, fp4, int8'],
    [null, "quantize=null: expected one of nf4, fp4, int8"],
    [[], "quantize=[]: expected one of nf4, fp4, int8"],
    [{}, "quantize.type is missing: expected one of nf4, fp4, int8"],
    [{ type: "nf5" }, 'quantize.type="nf5": expected one of nf4, fp4, int8'],
    [{ type: "nf4", blockSize: "64" }, 'quantize.blockSize="64": expected a power of two'],
    [{ type: "nf4", doubleQuant: "true" }, 'quantize.doubleQuant="true": expected true or false'],
    [{ type: "int8", doubleQuant: false }, "quantize.doubleQuant is for 4-bit weights"],
    [{ type: "nf4", blockSize: 48 }, "quantize.blockSize=48: expected a power of two"],
    [{ type: "nf4", blocksize: 64 }, "unknown setting quantize.blocksize"],
    [{ type: "int8", doubleQuant: true }, "quantize.doubleQuant is for 4-bit weights"],
    [{ type: "nf4", outlierThreshold: 6 }, "quantize.outlierThreshold is for 8-bit weights"],
  ] as const) {
    it(`refuses ${JSON.stringify(settings)}`, () => {
      expect(() => chooseBy(settings as never)).toThrow(
        expect.objectContaining({ code: "USAGE", message: expect.stringContaining(message) }),
      );
    });
  }

  it("says no to double quantisation where it says so", () => {
    const double: WeightStorage = { ...held, doubleQuant: true };
    const request = quantizeRequest({ type: "nf4", doubleQuant: false });
    expect(() => chooseStorage(request, folder(double))).toThrow(
      "quantize.doubleQuant: the weights of m are quantised already, as nf4, blocks of 64, 8-bit scales",
    );
    expect(chooseStorage(request, folder())).toEqual(held);
  });

  it("and dtype are two ways to hold the same weights", () => {
    expect(() => chooseBy("nf4", "float16")).toThrow('dtype and quantize "nf4" are two ways');
  });
});
