import { PeftTrainError } from "../errors.js";
import { rowCount } from "./npy.js";
import type { StoppedWriter, VectorFile, VectorWriter } from "./vectors.js";

/** Writes one JSON array a line, each number with the digits that give its float32 back. */
export class JsonlVectorWriter implements VectorWriter {
  rows: number;

  constructor(
    private readonly file: VectorFile,
    private readonly dim: number,
    stopped?: StoppedWriter,
  ) {
    this.rows = stopped?.rows ?? 0;
  }

  state(): undefined {}

  /** @throws NOT_FINITE: JSON has no NaN or infinity. */
  async write(vectors: Float32Array): Promise<void> {
    const rows = rowCount(vectors, this.dim);
    let text = "";
    for (let row = 0; row < rows; row++) {
      const numbers = Array.from(vectors.subarray(row * this.dim, (row + 1) * this.dim), float32Text);
      if (numbers.some((text) => text === undefined)) {
        throw new PeftTrainError(
          "NOT_FINITE",
          `vector ${this.rows + 1} for ${this.file.path} has NaN or infinity in it`,
        );
      }
      text += `[${numbers.join(",")}]\n`;
      this.rows++;
    }
    await this.file.write(text);
  }

  close(): Promise<void> {
    return this.file.commit();
  }

  abort(): Promise<void> {
    return this.file.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.abort();
  }
}

/** Nine digits always tell two float32 apart; seven or eight mostly do. */
function float32Text(value: number): string | undefined {
  if (!Number.isFinite(value)) return undefined;
  if (Object.is(value, -0)) return "-0";
  for (const digits of [7, 8]) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return String(rounded);
  }
  return String(Number(value.toPrecision(9)));
}
