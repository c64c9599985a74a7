import { execFile } from "node:child_process";
import {
  type FileHandle,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AtomicFile } from "../../../lib/data/atomic-file.js";
import { NpyWriter, writeNpy } from "../../../lib/data/npy.js";
import { openVectorWriter } from "../../../lib/data/vectors.js";
import { skips } from "../../support/skips.js";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "peft-train-vectors-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const VALUES = Float32Array.from([
  0,
  -0,
  1,
  -1.5,
  0.1,
  1 / 3,
  1e-45,
  3.4028235e38,
  -1.17549435e-38,
  16777217,
  0.30000001,
  2,
]);

describe(".npy", () => {
  test("every byte is where numpy.lib.format puts it", async () => {
    const file = path.join(folder, "v.npy");
    await writeNpy(file, Float32Array.from([1, 2, 3, 4, 5, -6]), 3);
    const bytes = await readFile(file);
    expect(bytes.subarray(0, 8)).toEqual(Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]));
    const headerLength = bytes.readUInt16LE(8);
    expect((10 + headerLength) % 64).toBe(0);
    const header = bytes.subarray(10, 10 + headerLength).toString("latin1");
    expect(header).toMatch(/^\{'descr': '<f4', 'fortran_order': False, 'shape': \(2, 3\), \} *\n$/);
    const data = bytes.subarray(10 + headerLength);
    expect(data).toHaveLength(24);
    expect(data.subarray(0, 4)).toEqual(Buffer.from([0, 0, 0x80, 0x3f]));
    expect(Array.from({ length: 6 }, (_, i) => data.readFloatLE(4 * i))).toEqual([1, 2, 3, 4, 5, -6]);
  });

  test("rows may come in any portions, from an array that is filled again", async () => {
    const file = path.join(folder, "v.npy");
    const writer = await NpyWriter.open(file, 4);
    const batch = new Float32Array(4 * 1000);
    const expected: number[] = [];
    for (let round = 0; round < 50; round++) {
      const rows = [1000, 0, 1, 37][round % 4] as number;
      for (let i = 0; i < rows * 4; i++) batch[i] = Math.fround(round + i / 7);
      for (let i = 0; i < rows * 4; i++) expected.push(batch[i] as number);
      await writer.write(batch.subarray(0, rows * 4));
    }
    await writer.close();
    const bytes = await readFile(file);
    expect(bytes.subarray(0, 128).toString("latin1")).toContain(`'shape': (${expected.length / 4}, 4)`);
    expect(bytes.length).toBe(128 + 4 * expected.length);
    expect(expected.every((value, i) => bytes.readFloatLE(128 + 4 * i) === value)).toBe(true);
  });

  test("no rows", async () => {
    const file = path.join(folder, "v.npy");
    await writeNpy(file, new Float32Array(), 384);
    expect((await readFile(file, "latin1")).slice(0, 128)).toContain("'shape': (0, 384)");
  });

  test("numpy reads it, where there is one", async (context) => {
    const file = path.join(folder, "v.npy");
    await writeNpy(file, VALUES, 4);
    const script =
      "import numpy, sys; a = numpy.load(sys.argv[1]); print(a.dtype.str, *a.shape, a.flags.c_contiguous, a.tobytes().hex())";
    const run = promisify(execFile)("python3", ["-c", script, file]).catch(() => undefined);
    const output = await run;
    if (skips(output === undefined, "no Python with NumPy here")) return context.skip();
    const hex = Buffer.from(VALUES.buffer).toString("hex");
    expect(output?.stdout.trim()).toBe(`<f4 3 4 True ${hex}`);
  });

  test("numbers that make no whole rows", async () => {
    const writer = await NpyWriter.open(path.join(folder, "v.npy"), 4);
    await expect(writer.write(new Float32Array(6))).rejects.toMatchObject({ code: "INTERNAL" });
    await writer.abort();
    expect(await readdir(folder)).toEqual([]);
  });
});

describe(".jsonl", () => {
  test("numbers come back as the same float32", async () => {
    const file = path.join(folder, "v.jsonl");
    const writer = await openVectorWriter(file, 4);
    await writer.write(VALUES);
    await writer.close();
    const lines = (await readFile(file, "utf8")).split("\n");
    expect(lines.pop()).toBe("");
    expect(lines).toHaveLength(3);
    expect(Float32Array.from(lines.flatMap((line) => JSON.parse(line)))).toEqual(VALUES);
    expect(lines[0]).toBe("[0,-0,1,-1.5]");
    expect(lines[1]).toMatch(/^\[0.1,0.33333334,/);
  });

  test("any float32", async () => {
    const bits = Uint32Array.from({ length: 20_000 }, (_, i) => Math.imul(i, 2_654_435_761));
    const values = new Float32Array(bits.buffer).filter((value) => Number.isFinite(value));
    const file = path.join(folder, "v.jsonl");
    const writer = await openVectorWriter(file, 1);
    await writer.write(values);
    await writer.close();
    const found = (await readFile(file, "utf8")).trimEnd().split("\n");
    expect(Float32Array.from(found.map((line) => JSON.parse(line)[0]))).toEqual(values);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])("%s has no JSON", async (value) => {
    const writer = await openVectorWriter(path.join(folder, "v.jsonl"), 2);
    await expect(writer.write(Float32Array.from([1, 2, 3, value]))).rejects.toMatchObject({
      code: "NOT_FINITE",
      message: expect.stringContaining("vector 2"),
    });
    await writer.abort();
    expect(await readdir(folder)).toEqual([]);
  });
});

test("another extension is refused before anything is written", async () => {
  await expect(openVectorWriter(path.join(folder, "v.bin"), 2)).rejects.toMatchObject({ code: "USAGE" });
  expect(await readdir(folder)).toEqual([]);
});

describe("AtomicFile", () => {
  test("nothing is there under the name before commit, and nothing else after", async () => {
    const file = path.join(folder, "out.txt");
    await writeFile(file, "old");
    const output = await AtomicFile.create(file);
    await output.write("x".repeat(1_000_000));
    await output.write(Buffer.from("é"));
    expect(await readFile(file, "utf8")).toBe("old");
    await output.commit();
    expect(await readFile(file, "utf8")).toBe(`${"x".repeat(1_000_000)}é`);
    expect(await readdir(folder)).toEqual(["out.txt"]);
    await output.abort();
    expect(await readdir(folder)).toEqual(["out.txt"]);
  });

  test("left without a commit, it leaves nothing", async () => {
    const file = path.join(folder, "out.txt");
    const fail = async () => {
      await using output = await AtomicFile.create(file);
      await output.write("half");
      throw new Error("stopped");
    };
    await expect(fail()).rejects.toThrow("stopped");
    expect(await readdir(folder)).toEqual([]);
  });

  test("a folder that is not there", async () => {
    await expect(AtomicFile.create(path.join(folder, "no", "out.txt"))).rejects.toMatchObject({
      code: "OUTPUT_UNWRITABLE",
      message: expect.stringContaining("its folder does not exist"),
    });
  });

  test("a folder in the file's place", async () => {
    const file = path.join(folder, "out.txt");
    await mkdir(path.join(file, "inside"), { recursive: true });
    const output = await AtomicFile.create(file);
    await expect(output.commit()).rejects.toMatchObject({ code: "OUTPUT_UNWRITABLE" });
    expect(await readdir(folder)).toEqual(["out.txt"]);
  });

  test("a folder that cannot be written", async (context) => {
    // Not even root makes files there.
    if (skips(process.platform !== "linux", "no folder here that takes no files of anybody"))
      return context.skip();
    await expect(AtomicFile.create("/sys/out.txt")).rejects.toMatchObject({
      code: "OUTPUT_UNWRITABLE",
      message: expect.stringMatching(
        /^cannot write \/sys\/out\.txt: (permission denied|the file system is read-only)$/,
      ),
    });
  });

  test("a device without space", async (context) => {
    if (skips(process.platform !== "linux", "no folder here that takes no files of anybody"))
      return context.skip();
    // The temporary file is always a new one, so the full device goes in under its handle.
    const full = path.join(folder, "full");
    await symlink("/dev/full", full);
    const other = await AtomicFile.create(path.join(folder, "out.txt"));
    const inner = other as unknown as { handle: FileHandle };
    await inner.handle.close();
    inner.handle = await open(full, "w");
    await expect(other.write("x".repeat(1_000_000))).rejects.toMatchObject({
      code: "OUTPUT_UNWRITABLE",
      message: expect.stringContaining("no space left"),
    });
    expect(await readdir(folder)).toEqual(["full"]);
  });
});
