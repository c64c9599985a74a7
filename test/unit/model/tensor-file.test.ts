import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { dequantizeBlockwise, expandAbsmax } from "../../../lib/model/dequantize.js";
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from "../../../lib/model/float16.js";
import { ModelWeights } from "../../../lib/model/model-weights.js";
import { TensorFile } from "../../../lib/model/tensor-file.js";
import { floatTensor, writeSafetensors } from "../../../lib/model/tensor-writer.js";
import { copyQuantModel, quantPath, type RawTensor, readRaw } from "../../support/quant-golden.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();

describe("numbers of 16 bits", () => {
  it("of every pattern come back from float32", () => {
    for (const [from, to] of [
      [fromFloat16, toFloat16],
      [fromBfloat16, toBfloat16],
    ] as const) {
      for (let bits = 0; bits < 65536; bits++) {
        const value = from(bits);
        if (Number.isNaN(value)) expect(from(to(value))).toBeNaN();
        else if (to(value) !== bits)
          expect.fail(`${bits.toString(16)} comes back as ${to(value).toString(16)}`);
      }
    }
  });

  it("are the nearest, the even one in the middle", () => {
    const step = 2 ** -10; // of float16 from 1 on
    expect(fromFloat16(toFloat16(1 + 0.5 * step))).toBe(1);
    expect(fromFloat16(toFloat16(1 + 1.5 * step))).toBe(1 + 2 * step);
    expect(fromFloat16(toFloat16(1 + 0.51 * step))).toBe(1 + step);
    expect(fromFloat16(toFloat16(65519))).toBe(65504);
    expect(fromFloat16(toFloat16(-65520))).toBe(Number.NEGATIVE_INFINITY);
    expect(fromFloat16(toFloat16(1.5 * 2 ** -24))).toBe(2 ** -23);
    expect(fromFloat16(toFloat16(0.5 * 2 ** -24))).toBe(0);
    expect(fromFloat16(toFloat16(2 ** -14 - 2 ** -26))).toBe(2 ** -14); // up into the normal ones
    expect(fromBfloat16(toBfloat16(1 + 2 ** -8))).toBe(1);
    expect(fromBfloat16(toBfloat16(1 + 3 * 2 ** -8))).toBe(1 + 2 ** -6);
    expect(toFloat16(-0)).toBe(0x8000);
  });
});

describe("a file of tensors", () => {
  it("is read as it was written, type by type", async () => {
    const values = Float32Array.of(1, -2.5, 0.1, 65504, 1e-6, 0);
    for (const [type, dtype] of [
      ["float32", "F32"],
      ["float16", "F16"],
      ["bfloat16", "BF16"],
    ] as const) {
      const file = temporary.path(`${type}.safetensors`);
      await writeSafetensors(file, [
        floatTensor("b", [2, 3], type, async () => values),
        {
          name: "a",
          dtype: "I64",
          shape: [1],
          bytes: 8,
          read: async () => Buffer.from([7, 0, 0, 0, 0, 0, 0, 0]),
        },
      ]);
      const raw = readRaw(file);
      expect([...raw.keys()]).toEqual(["b", "a"]);
      expect(raw.get("b")).toMatchObject({ dtype, shape: [2, 3] });
      expect(readFileSync(file).readBigUInt64LE(0) % 8n).toBe(0n);
      await using tensors = await TensorFile.open(file);
      const read = await tensors.floats("b");
      for (const [i, value] of values.entries()) {
        const step = type === "float32" ? 0 : type === "float16" ? 2 ** -11 : 2 ** -8;
        expect(Math.abs((read[i] as number) - value)).toBeLessThanOrEqual(
          Math.max(step * Math.abs(value), step ? 2 ** -25 : 0),
        );
      }
      await expect(tensors.floats("a")).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED" });
      await expect(tensors.floats("c")).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
    }
  });
});

describe("dequantising", () => {
  const golden = readRaw(quantPath("blockwise.safetensors"));
  const floats = ({ bytes }: RawTensor) => new Float32Array(new Uint8Array(bytes).buffer);
  const labels = [...golden.keys()].flatMap((key) => /^(.*)\.dequantized$/.exec(key)?.[1] ?? []);

  it("has golden files", () => expect(labels.length).toBeGreaterThan(20));

  for (const label of labels) {
    it(`gives bitsandbytes' own numbers: ${label}`, () => {
      const get = (name: string): RawTensor => golden.get(`${label}.${name}`) as RawTensor;
      const wanted = get("dequantized");
      const elements = wanted.bytes.length / 4;
      const nested = golden.has(`${label}.nested_absmax`);
      const codes = golden.get(`${label}.codes`) ?? golden.get(`${label}.weight`);
      const absmax = nested
        ? expandAbsmax(
            get("absmax").bytes,
            floats(get("nested_quant_map")),
            floats(get("nested_absmax")),
            floats(get("nested_offset"))[0] as number,
          )
        : floats(get("absmax"));
      const found = dequantizeBlockwise({
        elements,
        blockSize: Number(/_(\d+)_/.exec(label)?.[1]),
        codes: (codes as RawTensor).bytes,
        codeBook: floats(get("quant_map")),
        absmax,
      });
      expect(Buffer.from(found.buffer).equals(wanted.bytes)).toBe(true);
    });
  }

  it("reads a whole model, in the names that it had", async () => {
    await using plain = await ModelWeights.open(join(quantPath("model"), "model.safetensors"));
    for (const name of ["nf4", "nf4-double", "fp4", "int8"]) {
      await using weights = await ModelWeights.open(join(quantPath(name), "model.safetensors"));
      expect(weights.names.sort()).toEqual(plain.names.sort());
      let quantized = 0;
      for (const key of plain.names) {
        expect(weights.shape(key)).toEqual(plain.shape(key));
        const [wanted, found] = [await plain.floats(key), await weights.floats(key)];
        const off =
          Math.hypot(...wanted.map((value, i) => value - (found[i] as number))) / Math.hypot(...wanted);
        if (!weights.isQuantized(key)) continue;
        quantized++;
        // Relative error of four bits of a normal distribution is 0.09 (NF4) to 0.13 (FP4), of eight below 0.01.
        expect(off, key).toBeLessThan(name === "int8" ? 0.01 : 0.15);
        expect(off, key).toBeGreaterThan(name === "int8" ? 1e-3 : 0.05);
      }
      expect(quantized).toBe(13);
    }
  });

  it("refuses a state that does not fit", async () => {
    const folder = copyQuantModel("nf4", temporary.path("broken"));
    const file = join(folder, "model.safetensors");
    const content = readFileSync(file);
    const at = content.indexOf('"blocksize": 64');
    content.write('"blocksize": 32', at);
    writeFileSync(file, content);
    await using weights = await ModelWeights.open(file);
    const reading = Promise.all(weights.names.map((name) => weights.floats(name)));
    await expect(reading).rejects.toMatchObject({ code: "QUANT_STATE" });
  });
});
