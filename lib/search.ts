import { setImmediate } from "node:timers/promises";
import { readVectorBlocks } from "./data/vector-blocks.js";
import { PeftTrainError } from "./errors.js";
import { toldCosine } from "./metrics/cosine.js";

export interface Neighbour {
  /** Of the file of vectors, from 0. */
  row: number;
  /** Cosine to the query. */
  score: number;
}

/**
 * The rows of a file of vectors that are nearest to a query by cosine, the best first; exact, and in the memory of a block. Rows of equal
 * score stand in the order of the file.
 * @param file That `encode` wrote: .npy, .jsonl or .parquet.
 * @throws As for reading vectors, and DATA_MALFORMED for vectors of another width than the query's.
 */
export async function nearestRows(file: string, query: Float32Array, top: number): Promise<Neighbour[]> {
  // Loaded here: nothing else needs its addon.
  const { exactSearch, MetricKind } = await import("usearch").catch((cause: unknown) => {
    throw new PeftTrainError(
      "ADDON_MISSING",
      `the usearch package does not load: ${(cause as Error).message}`,
      {
        hint: "Run `npm ci` again, so that npm installs it whole.",
        cause,
      },
    );
  });
  let best: Neighbour[] = [];
  let first = 0;
  for await (const { values, dim } of readVectorBlocks(file)) {
    if (dim !== query.length) {
      throw new PeftTrainError(
        "DATA_MALFORMED",
        `${file} holds vectors of ${dim}, the model's have ${query.length}`,
        {
          hint: "Search with the model and adapter that encoded it.",
        },
      );
    }
    const rows = values.length / dim;
    const found = exactSearch(values, query, dim, Math.min(top, rows), MetricKind.Cos);
    for (const key of found.keys as BigUint64Array) {
      const row = Number(key);
      best.push({ row: first + row, score: cosine(values.subarray(row * dim, (row + 1) * dim), query) });
    }
    best = best.sort((a, b) => b.score - a.score || a.row - b.row).slice(0, top);
    first += rows;
    await setImmediate();
  }
  return best;
}

/** In float64, so that the last digit shown is right. */
function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] as number, b[i] as number];
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa === 0 || bb === 0 ? 0 : toldCosine(dot / Math.sqrt(aa * bb));
}
