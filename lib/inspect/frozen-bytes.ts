import type { ModelShape, WeightStorage } from "../native/types.js";

/** Absmax values in 8 bits that share a float32 scale. */
const NESTED_BLOCK = 256;

type Held = Pick<WeightStorage, "format" | "blockSize" | "doubleQuant" | "outlierFraction">;

/**
 * Bytes that the frozen weights of an encoder take in memory, beside libtorch itself, from the sizes alone: matrices of the encoder
 * as they are held, word embeddings in 16 bits unless matrices are float32, all else float32; of token types one row, and no pooler.
 */
export function frozenBytes(shape: ModelShape, held: Held): number {
  const { hiddenSize: h, intermediateSize: f, numLayers, vocabSize, maxPositions } = shape;
  const square = matrixBytes(h, h, held);
  const layer = 4 * square + matrixBytes(f, h, held) + matrixBytes(h, f, held);
  const words = vocabSize * h * (held.format === "float32" ? 4 : 2);
  const other = 4 * ((maxPositions + 1) * h + 2 * h + numLayers * (9 * h + f));
  return numLayers * layer + words + other;
}

function matrixBytes(rows: number, columns: number, held: Held): number {
  const weights = rows * columns;
  switch (held.format) {
    case "float32":
      return 4 * weights;
    case "float16":
    case "bfloat16":
      return 2 * weights;
    case "int8":
      return weights + 4 * rows;
    default: {
      const blocks = Math.ceil(weights / held.blockSize);
      const scales = held.doubleQuant ? blocks + 4 * Math.ceil(blocks / NESTED_BLOCK) + 4 : 4 * blocks;
      return Math.ceil(weights / 2) + scales + 6 * Math.floor(held.outlierFraction * weights);
    }
  }
}

/** A storage with the defaults of `--load_in_4bit` and its relatives. */
export function heldAs(format: WeightStorage["format"]): Held {
  return { format, blockSize: 64, doubleQuant: false, outlierFraction: 0 };
}
