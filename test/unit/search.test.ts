import { truncateSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openVectorWriter } from "../../lib/data/vectors.js";
import { nearestRows } from "../../lib/search.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { mulberry32 } from "../support/tiny-model.js";

const temporary = temporaryFolder();
const DIM = 16;
const ROWS = 20_000;
const random = mulberry32(7);
const values = Float32Array.from({ length: ROWS * DIM }, () => random() - 0.5);
const query = Float32Array.from({ length: DIM }, () => random() - 0.5);
// Two rows that are alike, one of them longer: equal cosines come in the order of the file.
for (let j = 0; j < DIM; j++) {
  values[5 * DIM + j] = query[j] as number;
  values[19_000 * DIM + j] = 4 * (query[j] as number);
}

async function write(name: string, some = values): Promise<string> {
  const file = temporary.path(name);
  const writer = await openVectorWriter(file, DIM);
  await writer.write(some);
  await writer.close();
  return file;
}

/** By looking at all of them, in float64. */
function expected(top: number): [row: number, score: number][] {
  const norm = (from: (j: number) => number) => Math.hypot(...Array.from({ length: DIM }, (_, j) => from(j)));
  const scores = Array.from({ length: ROWS }, (_, i): [number, number] => {
    const row = values.subarray(i * DIM, (i + 1) * DIM);
    const dot = row.reduce((sum, x, j) => sum + x * (query[j] as number), 0);
    return [i, dot / (norm((j) => row[j] as number) * norm((j) => query[j] as number))];
  });
  return scores.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, top);
}

describe("the nearest rows", () => {
  it.each(["npy", "jsonl", "parquet"])("of a .%s file are those of a look at all of them", async (format) => {
    const found = await nearestRows(await write(`v.${format}`), query, 25);
    const best = expected(25);
    expect(found.map(({ row }) => row)).toEqual(best.map(([row]) => row));
    expect(found.slice(0, 2).map(({ row }) => row)).toEqual([5, 19_000]);
    for (const [i, { score }] of found.entries()) expect(score).toBeCloseTo(best[i]?.[1] as number, 12);
  });

  it("are all of them where there are fewer", async () => {
    const found = await nearestRows(await write("few.npy", values.subarray(0, 3 * DIM)), query, 10);
    expect(found.map(({ row }) => row).sort()).toEqual([0, 1, 2]);
  });

  it("have no cosine above 1, which rounding gives some of those that point one way", async () => {
    const many = values.subarray(0, 1000 * DIM);
    const file = await write(
      "thrice.npy",
      many.map((value) => 3 * value),
    );
    for (let i = 0; i < 1000; i++) {
      const [best] = await nearestRows(file, many.slice(i * DIM, (i + 1) * DIM), 1);
      expect(best?.row).toBe(i);
      expect(best?.score).toBeLessThanOrEqual(1);
    }
  });

  it("of vectors of another width, or of what is no file of vectors, are refused", async () => {
    const file = await write("w.npy");
    await expect(nearestRows(file, new Float32Array(8), 1)).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringContaining("holds vectors of 16, the model's have 8"),
    });
    truncateSync(file, 5000);
    await expect(nearestRows(file, query, 1)).rejects.toThrow(/w\.npy ends in row \d+ of 20000/);
    for (const [name, content, code] of [
      ["text.npy", "no vectors", "DATA_MALFORMED"],
      ["text.parquet", "no vectors", "DATA_MALFORMED"],
      ["ragged.jsonl", "[1,2]\n[1]\n", "DATA_MALFORMED"],
      ["words.jsonl", '["a"]\n', "DATA_MALFORMED"],
      ["v.txt", "", "USAGE"],
    ] as const) {
      writeFileSync(temporary.path(name), content);
      await expect(nearestRows(temporary.path(name), query, 1), name).rejects.toMatchObject({ code });
    }
    await expect(nearestRows(temporary.path("none.npy"), query, 1)).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
    });
  });
});
