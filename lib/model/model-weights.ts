import { isQuantState, type QuantizedTensor, quantizedTensor } from "./dequantize.js";
import { TensorFile } from "./tensor-file.js";
import { type FloatType, floatTensor, type TensorSource } from "./tensor-writer.js";

/** Prefixes of BertModel's names, alone or inside a model with a head. */
const PREFIXES = ["", "bert.", "model."];

/** The weights of a model as they were before quantisation, read one at a time. */
export class ModelWeights implements AsyncDisposable {
  private constructor(
    readonly file: TensorFile,
    private readonly quantized: ReadonlyMap<string, QuantizedTensor>,
    /** What stands before BertModel's names. */
    readonly prefix: string,
  ) {}

  /** @throws FILE_NOT_FOUND, FILE_UNREADABLE, MODEL_CORRUPT, QUANT_STATE */
  static async open(path: string): Promise<ModelWeights> {
    const file = await TensorFile.open(path);
    try {
      const quantized = new Map<string, QuantizedTensor>();
      for (const key of file.tensors.keys()) {
        if (isQuantState(key) || !key.endsWith(".weight")) continue;
        const tensor = await quantizedTensor(file, key);
        if (tensor !== undefined) quantized.set(key, tensor);
      }
      const prefix = PREFIXES.find((before) =>
        file.tensors.has(`${before}embeddings.word_embeddings.weight`),
      );
      return new ModelWeights(file, quantized, prefix ?? "");
    } catch (error) {
      await file[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Names of tensors, in the order of the file, without what only says how others are quantised. */
  get names(): string[] {
    return [...this.file.tensors.keys()].filter((key) => !isQuantState(key));
  }

  shape(name: string): number[] {
    return this.quantized.get(name)?.shape ?? this.file.header(name).shape;
  }

  isQuantized(name: string): boolean {
    return this.quantized.has(name);
  }

  isFloat(name: string): boolean {
    return this.quantized.has(name) || /^(F64|F32|F16|BF16)$/.test(this.file.header(name).dtype);
  }

  /** @throws MODEL_CORRUPT, MODEL_UNSUPPORTED, QUANT_STATE, FILE_UNREADABLE */
  floats(name: string): Promise<Float32Array> {
    return this.quantized.get(name)?.floats() ?? this.file.floats(name);
  }

  /**
   * Every tensor, ready to be written: floats as `type`, whole numbers as they are.
   * @param change May change the numbers of a tensor before they are written.
   */
  sources(
    type: FloatType,
    change: (name: string, values: Float32Array) => Float32Array = (_, values) => values,
  ): TensorSource[] {
    return this.names.map((name) => {
      if (this.isFloat(name)) {
        return floatTensor(name, this.shape(name), type, async () => change(name, await this.floats(name)));
      }
      const { dtype, shape, begin, end } = this.file.header(name);
      return { name, dtype, shape, bytes: end - begin, read: () => this.file.bytes(name) };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file[Symbol.asyncDispose]();
  }
}
