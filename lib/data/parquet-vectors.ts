import type { RowGroup, SchemaElement } from "hyparquet";
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import { rowCount } from "./npy.js";
import type { StoppedWriter, VectorFile, VectorWriter } from "./vectors.js";

/** Rows of a row group: what is in memory at a time, and what a reader reads at once. */
export const ROWS_A_GROUP = 8192;

/** One column `embedding`, a list of float32, as pyarrow and pandas read it. */
const SCHEMA: SchemaElement[] = [
  { name: "root", num_children: 1 },
  {
    name: "embedding",
    repetition_type: "REQUIRED",
    num_children: 1,
    converted_type: "LIST",
    logical_type: { type: "LIST" },
  },
  { name: "list", repetition_type: "REPEATED", num_children: 1 },
  { name: "element", type: "FLOAT", repetition_type: "REQUIRED" },
];

/** Writes vectors as Parquet, uncompressed: floats of an embedding do not get smaller. */
export class ParquetVectorWriter implements VectorWriter {
  rows: number;
  /** Rows of the group in hand. */
  private group: Float32Array[] = [];

  private constructor(
    private readonly file: VectorFile,
    private readonly dim: number,
    private readonly bytes: ByteWriter,
    private readonly parquet: ParquetWriter,
  ) {
    this.rows = Number(parquet.num_rows);
  }

  /** Into an open file; one that has stopped must have done so after whole row groups. */
  static async over(file: VectorFile, dim: number, stopped?: StoppedWriter): Promise<ParquetVectorWriter> {
    const bytes = new ByteWriter();
    const parquet = new ParquetWriter({
      writer: bytes,
      schema: SCHEMA,
      codec: "UNCOMPRESSED",
      statistics: false,
      createdBy: "peft-train",
    });
    const writer = new ParquetVectorWriter(file, dim, bytes, parquet);
    if (stopped === undefined) await writer.flush();
    else writer.restore(stopped);
    return writer;
  }

  async write(vectors: Float32Array): Promise<void> {
    const rows = rowCount(vectors, this.dim);
    for (let row = 0; row < rows; row++) {
      this.group.push(vectors.slice(row * this.dim, (row + 1) * this.dim));
      if (this.group.length === ROWS_A_GROUP) await this.endGroup();
    }
    this.rows += rows;
  }

  state(): unknown {
    const { offset } = this.bytes;
    return { offset, rowGroups: encodeBigInts(this.parquet.row_groups) };
  }

  async close(): Promise<void> {
    if (this.group.length > 0) await this.endGroup();
    await this.parquet.finish();
    await this.flush();
    await this.file.commit();
  }

  abort(): Promise<void> {
    return this.file.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.abort();
  }

  private async endGroup(): Promise<void> {
    const data = this.group.map((row) => Array.from(row)); // the library takes no typed arrays as lists
    this.group = [];
    const column = { name: "embedding", data, encoding: "PLAIN" as const, offsetIndex: false };
    await this.parquet.write({ columnData: [column], rowGroupSize: ROWS_A_GROUP });
    await this.flush();
  }

  /** Hands on what the library has put into its buffer. */
  private async flush(): Promise<void> {
    await this.file.write(this.bytes.getBytes().slice());
    this.bytes.index = 0;
  }

  private restore({ rows, state }: StoppedWriter): void {
    const { offset, rowGroups } = state as { offset: number; rowGroups: unknown };
    this.parquet.row_groups = decodeBigInts(rowGroups) as RowGroup[];
    this.parquet.num_rows = BigInt(rows);
    this.bytes.offset = offset;
    this.bytes.index = 0;
    this.rows = rows;
  }
}

const BIG = "bigint:";

function encodeBigInts(value: unknown): unknown {
  const text = JSON.stringify(value, (_, item) => (typeof item === "bigint" ? `${BIG}${item}` : item));
  return JSON.parse(text);
}

function decodeBigInts(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_, item) =>
    typeof item === "string" && item.startsWith(BIG) ? BigInt(item.slice(BIG.length)) : item,
  );
}
