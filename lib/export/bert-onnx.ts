import type { ModelShape, Pooling } from "../native/types.js";
import { OnnxGraph } from "./onnx-graph.js";

/** LayerNormalization is an operator since 17; ReduceL2 takes its axes as an attribute until 17. */
export const OPSET = 17;

/** A tensor of BertModel by its name there. */
export interface WeightReader {
  shape: (name: string) => number[];
  read: (name: string) => Promise<Float32Array>;
}

/** What a vector is made of, where the model is to give vectors of texts too. */
export interface SentenceOutput {
  pooling: Pooling;
  normalize: boolean;
}

/**
 * A BERT encoder as an ONNX graph: input_ids, attention_mask and token_type_ids [batch, sequence] of int64 to last_hidden_state
 * [batch, sequence, hidden], and to sentence_embedding [batch, hidden] where that is asked for.
 */
export function bertGraph(
  shape: ModelShape,
  weights: WeightReader,
  sentence: SentenceOutput | undefined,
): OnnxGraph {
  return new BertGraph(shape, weights).build(sentence);
}

class BertGraph {
  private readonly graph = new OnnxGraph();

  constructor(
    private readonly shape: ModelShape,
    private readonly weights: WeightReader,
  ) {}

  build(sentence: SentenceOutput | undefined): OnnxGraph {
    const { graph, shape } = this;
    const tokens = ["batch", "sequence"];
    for (const name of ["input_ids", "attention_mask", "token_type_ids"]) graph.input(name, "int64", tokens);
    const mask = graph.node("Cast", ["attention_mask"], { to: 1 });
    const bias = this.attentionBias(mask);
    let hidden = this.embeddings();
    for (let i = 0; i < shape.numLayers; i++) {
      const last = i === shape.numLayers - 1 ? "last_hidden_state" : undefined;
      hidden = this.layer(`encoder.layer.${i}`, hidden, bias, last);
    }
    graph.output("last_hidden_state", "float", [...tokens, shape.hiddenSize]);
    if (sentence !== undefined) {
      this.pool(hidden, mask, sentence);
      graph.output("sentence_embedding", "float", ["batch", shape.hiddenSize]);
    }
    return graph;
  }

  private embeddings(): string {
    const { graph } = this;
    const words = graph.node("Gather", [this.plain("embeddings.word_embeddings.weight"), "input_ids"]);
    const types = graph.node("Gather", [
      this.plain("embeddings.token_type_embeddings.weight"),
      "token_type_ids",
    ]);
    const sizes = graph.node("Shape", ["input_ids"]);
    const length = graph.node("Gather", [sizes, graph.integers([1])]);
    const positions = graph.node("Slice", [
      this.plain("embeddings.position_embeddings.weight"),
      graph.integers([0]),
      length,
      graph.integers([0]),
    ]);
    const sum = graph.node("Add", [graph.node("Add", [words, types]), positions]);
    return this.layerNorm("embeddings.LayerNorm", sum);
  }

  /** 0 where a token counts, the smallest float32 where it is padding: [batch, 1, 1, sequence]. */
  private attentionBias(mask: string): string {
    const { graph } = this;
    const wide = graph.node("Unsqueeze", [mask, graph.integers([1, 2])]);
    const padding = graph.node("Sub", [graph.scalar(1), wide]);
    return graph.node("Mul", [padding, graph.scalar(-3.4028234663852886e38)]);
  }

  private layer(at: string, x: string, bias: string, output: string | undefined): string {
    const { graph } = this;
    const context = this.attention(`${at}.attention.self`, x, bias);
    const attended = graph.node("Add", [this.linear(`${at}.attention.output.dense`, context), x]);
    const middle = this.layerNorm(`${at}.attention.output.LayerNorm`, attended);
    const wide = this.gelu(this.linear(`${at}.intermediate.dense`, middle));
    const narrow = graph.node("Add", [this.linear(`${at}.output.dense`, wide), middle]);
    return this.layerNorm(`${at}.output.LayerNorm`, narrow, output);
  }

  private attention(at: string, x: string, bias: string): string {
    const { graph, shape } = this;
    const size = shape.hiddenSize / shape.numHeads;
    const heads = (name: string, order: number[]): string => {
      const split = graph.integers([0, 0, shape.numHeads, size]);
      const reshaped = graph.node("Reshape", [this.linear(`${at}.${name}`, x), split]);
      return graph.node("Transpose", [reshaped], { perm: order });
    };
    const query = heads("query", [0, 2, 1, 3]);
    const key = heads("key", [0, 2, 3, 1]);
    const value = heads("value", [0, 2, 1, 3]);
    const scores = graph.node("Mul", [graph.node("MatMul", [query, key]), graph.scalar(1 / Math.sqrt(size))]);
    const weights = graph.node("Softmax", [graph.node("Add", [scores, bias])], { axis: 3 });
    const mixed = graph.node("Transpose", [graph.node("MatMul", [weights, value])], { perm: [0, 2, 1, 3] });
    return graph.node("Reshape", [mixed, graph.integers([0, 0, shape.hiddenSize])]);
  }

  /** x W^T + b; W is written transposed, as MatMul wants it. */
  private linear(module: string, x: string): string {
    const { graph, weights } = this;
    const name = `${module}.weight`;
    const [outputs = 0, inputs = 0] = weights.shape(name);
    const matrix = graph.weight(name, [inputs, outputs], async () =>
      transposed(await weights.read(name), outputs, inputs),
    );
    return graph.node("Add", [graph.node("MatMul", [x, matrix]), this.plain(`${module}.bias`)]);
  }

  private layerNorm(module: string, x: string, output?: string): string {
    const inputs = [x, this.plain(`${module}.weight`), this.plain(`${module}.bias`)];
    const attributes = { axis: 2, epsilon: { float: this.shape.layerNormEps } };
    return this.graph.node("LayerNormalization", inputs, attributes, output);
  }

  /** x / 2 * (1 + erf(x / sqrt 2)). */
  private gelu(x: string): string {
    const { graph } = this;
    const erf = graph.node("Erf", [graph.node("Div", [x, graph.scalar(Math.SQRT2)])]);
    const product = graph.node("Mul", [x, graph.node("Add", [erf, graph.scalar(1)])]);
    return graph.node("Mul", [product, graph.scalar(0.5)]);
  }

  private pool(hidden: string, mask: string, { pooling, normalize }: SentenceOutput): void {
    const { graph } = this;
    const name = "sentence_embedding";
    const pooled = normalize ? undefined : name;
    let vector: string;
    if (pooling === "cls") {
      vector = graph.node("Gather", [hidden, graph.integers([0], [])], { axis: 1 }, pooled);
    } else {
      const tokens = graph.node("Unsqueeze", [mask, graph.integers([2])]);
      const sum = graph.node("ReduceSum", [graph.node("Mul", [hidden, tokens]), graph.integers([1])], {
        keepdims: 0,
      });
      const count = graph.node("ReduceSum", [tokens, graph.integers([1])], { keepdims: 0 });
      vector = graph.node("Div", [sum, graph.node("Max", [count, graph.scalar(1e-9)])], {}, pooled);
    }
    if (!normalize) return;
    const norm = graph.node("ReduceL2", [vector], { axes: [1], keepdims: 1 });
    graph.node("Div", [vector, graph.node("Max", [norm, graph.scalar(1e-12)])], {}, name);
  }

  private plain(name: string): string {
    return this.graph.weight(name, this.weights.shape(name), () => this.weights.read(name));
  }
}

function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j] as number;
  }
  return out;
}
