import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { writeNpy } from "../../../lib/data/npy.js";
import { readNpy } from "../../../lib/data/npy-reader.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();

/** A .npy file as NumPy writes it, of any header. */
function write(name: string, description: string, data: Uint8Array, version = 1): string {
  const header = Buffer.from(`${description}\n`, "latin1");
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  if (version === 1) length.writeUInt16LE(header.length);
  else length.writeUInt32LE(header.length);
  const magic = Buffer.from(`\x93NUMPY${String.fromCharCode(version)}\x00`, "latin1");
  writeFileSync(temporary.path(name), Buffer.concat([magic, length, header, data]));
  return temporary.path(name);
}

const described = (descr: string, shape = "(2, 2)", fortran = "False"): string =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }`;
const floats = new Uint8Array(Float32Array.of(1, 2, 3, -0.5).buffer);

describe("readNpy", () => {
  it("reads what encode writes", async () => {
    const file = temporary.path("own.npy");
    await writeNpy(file, Float32Array.of(1, 2, 3, 4, 5, 6), 3);
    const expected = { path: file, rows: 2, columns: 3, values: Float32Array.of(1, 2, 3, 4, 5, 6) };
    expect(await readNpy(file)).toEqual(expected);
  });

  it("reads float64 and later versions of the format", async () => {
    const values = Float32Array.of(1, 2, 3, -0.5);
    expect((await readNpy(write("v2.npy", described("<f4"), floats, 2))).values).toEqual(values);
    const doubles = new Uint8Array(Float64Array.from(values).buffer);
    expect((await readNpy(write("f8.npy", described("<f8"), doubles))).values).toEqual(values);
  });

  const cases: [string, () => string, RegExp][] = [
    ["other files", () => write("x", "", floats).replace(/x$/, "plain"), /there is no file/],
    [
      "whole numbers",
      () => write("i4.npy", described("<i4"), floats),
      /expected rows of float32 or float64.*<i4/,
    ],
    ["columns first", () => write("f.npy", described("<f4", "(2, 2)", "True"), floats), /expected rows/],
    ["one dimension", () => write("1d.npy", described("<f4", "(4,)"), floats), /expected rows/],
    [
      "data cut off",
      () => write("cut.npy", described("<f4"), floats.subarray(2)),
      /expected 16 bytes .* found 14/,
    ],
    [
      "NaN",
      () => write("nan.npy", described("<f4"), new Uint8Array(Float32Array.of(1, 2, 3, NaN).buffer)),
      /row 1 is not finite/,
    ],
  ];
  for (const [what, file, message] of cases) {
    it(`refuses ${what}`, () => expect(readNpy(file())).rejects.toThrow(message));
  }

  it("refuses what is no array", async () => {
    writeFileSync(temporary.path("text.npy"), "a text that is long enough");
    await expect(readNpy(temporary.path("text.npy"))).rejects.toMatchObject({ code: "DATA_MALFORMED" });
  });
});
