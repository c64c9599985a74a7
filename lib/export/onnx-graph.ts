import { floatBytes, type Piece } from "../model/tensor-writer.js";
import { bytes, float, head, int, ints, text } from "../tracking/protobuf.js";

/** Of onnx.proto3: TensorProto.DataType and AttributeProto.AttributeType. */
const TYPES = { float: 1, int64: 7 } as const;
const [FLOAT, INT, INTS] = [1, 2, 7];
/** The format of the file that came with opset 17. */
const IR_VERSION = 8;

export type Attribute = number | { float: number } | readonly number[];
/** Sizes of a tensor; a word names one that differs from call to call. */
export type Dimensions = readonly (number | string)[];

/** Numbers of a constant, read when they are written. */
interface Initializer {
  header: Buffer;
  bytes: number;
  read: Piece["read"];
}

/** An ONNX graph while it is built: operators are added one by one, each gives the name of what it computes. */
export class OnnxGraph {
  private readonly nodes: Buffer[] = [];
  private readonly initializers: Initializer[] = [];
  private readonly inputs: Buffer[] = [];
  private readonly outputs: Buffer[] = [];
  private readonly constants = new Map<string, string>();

  /** Adds an operator of the ONNX set and returns the name of its output: the name of the node unless it is given. */
  node(
    type: string,
    inputs: readonly string[],
    attributes: Record<string, Attribute> = {},
    output = `${type}_${this.nodes.length}`,
  ): string {
    this.nodes.push(
      Buffer.concat([
        ...inputs.map((name) => text(1, name)),
        text(2, output),
        text(3, output),
        text(4, type),
        ...Object.entries(attributes).map(([name, value]) => bytes(5, attribute(name, value))),
      ]),
    );
    return output;
  }

  input(name: string, type: keyof typeof TYPES, shape: Dimensions): string {
    this.inputs.push(valueInfo(name, type, shape));
    return name;
  }

  output(name: string, type: keyof typeof TYPES, shape: Dimensions): void {
    this.outputs.push(valueInfo(name, type, shape));
  }

  /** A weight: float32, row by row. */
  weight(name: string, shape: readonly number[], read: () => Promise<Float32Array>): string {
    const length = 4 * shape.reduce((product, size) => product * size, 1);
    this.initializers.push({
      header: tensorHeader(name, "float", shape),
      bytes: length,
      read: async () => floatBytes(await read(), "float32"),
    });
    return name;
  }

  /** One float. */
  scalar(value: number): string {
    return this.constant(`scalar_${value}`, "float", [], floatBytes(Float32Array.of(value), "float32"));
  }

  /** Whole numbers: a shape, or axes. */
  integers(values: readonly number[], shape: readonly number[] = [values.length]): string {
    const content = Buffer.alloc(8 * values.length);
    for (const [i, value] of values.entries()) content.writeBigInt64LE(BigInt(value), 8 * i);
    return this.constant(`integers_${[...shape, "of", ...values].join("_")}`, "int64", shape, content);
  }

  /** The file of a model that holds this graph, in pieces. */
  pieces(name: string, opset: number, producer: { name: string; version: string }): Piece[] {
    const described = [
      ...this.nodes.map((node) => bytes(1, node)),
      text(2, name),
      ...this.inputs.map((input) => bytes(11, input)),
      ...this.outputs.map((output) => bytes(12, output)),
    ];
    const initializers = this.initializers.flatMap((tensor) => {
      const raw = head(9, tensor.bytes);
      const start = head(5, tensor.header.length + raw.length + tensor.bytes);
      return [whole(Buffer.concat([start, tensor.header, raw])), { bytes: tensor.bytes, read: tensor.read }];
    });
    const content = [whole(Buffer.concat(described)), ...initializers];
    const length = content.reduce((sum, piece) => sum + piece.bytes, 0);
    const model = Buffer.concat([
      int(1, IR_VERSION),
      text(2, producer.name),
      text(3, producer.version),
      bytes(8, int(2, opset)),
      head(7, length),
    ]);
    return [whole(model), ...content];
  }

  private constant(
    name: string,
    type: keyof typeof TYPES,
    shape: readonly number[],
    content: Buffer,
  ): string {
    if (!this.constants.has(name)) {
      this.constants.set(name, name);
      const header = tensorHeader(name, type, shape);
      this.initializers.push({ header, bytes: content.length, read: async () => content });
    }
    return name;
  }
}

function whole(content: Buffer): Piece {
  return { bytes: content.length, read: async () => content };
}

function tensorHeader(name: string, type: keyof typeof TYPES, shape: readonly number[]): Buffer {
  return Buffer.concat([ints(1, shape), int(2, TYPES[type]), text(8, name)]);
}

function attribute(name: string, value: Attribute): Buffer {
  if (typeof value === "number") return Buffer.concat([text(1, name), ints(3, [value]), int(20, INT)]);
  if ("float" in value) return Buffer.concat([text(1, name), float(2, value.float), int(20, FLOAT)]);
  return Buffer.concat([text(1, name), ints(8, value), int(20, INTS)]);
}

function valueInfo(name: string, type: keyof typeof TYPES, shape: Dimensions): Buffer {
  const dimensions = shape.map((size) => bytes(1, typeof size === "number" ? int(1, size) : text(2, size)));
  const tensor = Buffer.concat([int(1, TYPES[type]), bytes(2, Buffer.concat(dimensions))]);
  return Buffer.concat([text(1, name), bytes(2, bytes(1, tensor))]);
}
