import type { AdapterChoice, NativeEncoder, TokenBatch } from "./native/types.js";

/** As much of an encoder as encoding needs. */
export type EncodingEngine = Pick<NativeEncoder, "info" | "encode">;

/** Texts as packed token ids: text i is `ids[offsets[i] .. offsets[i + 1])`. */
export interface PackedTexts {
  ids: Int32Array;
  offsets: ArrayLike<number>;
}

/** With one entry of `adapterOfText` a text, or none. */
export interface EmbedOptions extends AdapterChoice {
  normalize: boolean;
  /** Most texts in one native call; by default as many as `TOKENS_A_CALL` holds. */
  textsPerCall?: number;
  /** Called after each native call with the number of texts done. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Checked between native calls; true ends with `undefined`. */
  stopped?: (() => boolean) | undefined;
}

/** Long enough that a call's own cost does not matter, short enough for Ctrl-C and a progress bar. */
const TOKENS_A_CALL = 32_768;
/**
 * Tokens that run through the encoder together. On the CPU time is the same from 512 to 4,096, and memory grows with it; a GPU
 * wants many (not measured).
 */
export function encodingMicroBatch(encoder: EncodingEngine): number {
  return encoder.info().device === "cpu" ? 1024 : 16_384;
}

/**
 * Embeds texts in order of length, so that what runs together is of one length, and returns the vectors in the order
 * of the texts: [texts, hidden], or undefined when it was stopped.
 */
export async function embedTexts(
  encoder: EncodingEngine,
  texts: PackedTexts,
  options: EmbedOptions,
): Promise<Float32Array | undefined> {
  const { offsets } = texts;
  const total = offsets.length - 1;
  const length = (i: number): number => (offsets[i + 1] as number) - (offsets[i] as number);
  // The longest first: what needs the most memory fails at once, not after minutes.
  const order = Int32Array.from({ length: total }, (_, i) => i).sort(
    (a, b) => length(b) - length(a) || a - b,
  );
  const microBatchTokens = encodingMicroBatch(encoder);
  let vectors: Float32Array | undefined;
  let width = 0;
  for (let start = 0; start < total; ) {
    if (options.stopped?.()) return undefined;
    let end = start;
    for (let tokens = 0; end < total && end - start < (options.textsPerCall ?? total); end++) {
      tokens += length(order[end] as number);
      if (tokens > TOKENS_A_CALL && end > start) break;
    }
    const some = order.subarray(start, end);
    const { adapter, adapters, adapterOfText } = options;
    const rows = await encoder.encode(gatherTexts(texts, some), {
      adapter,
      ...(adapterOfText && { adapters, adapterOfText: some.map((text) => adapterOfText[text] as number) }),
      normalize: options.normalize,
      microBatchTokens,
    });
    if (vectors === undefined) {
      width = rows.length / (end - start);
      vectors = new Float32Array(total * width);
    }
    for (let i = start; i < end; i++) {
      const row = rows.subarray((i - start) * width, (i - start + 1) * width);
      vectors.set(row, (order[i] as number) * width);
    }
    start = end;
    options.onProgress?.(start, total);
  }
  return vectors ?? new Float32Array(0);
}

/** The texts of `order`, in that order. */
export function gatherTexts({ ids, offsets }: PackedTexts, order: Int32Array): TokenBatch {
  const cuSeqlens = new Int32Array(order.length + 1);
  for (const [i, text] of order.entries()) {
    cuSeqlens[i + 1] = (cuSeqlens[i] as number) + (offsets[text + 1] as number) - (offsets[text] as number);
  }
  const packed = new Int32Array(cuSeqlens[order.length] as number);
  for (const [i, text] of order.entries()) {
    packed.set(ids.subarray(offsets[text], offsets[text + 1]), cuSeqlens[i]);
  }
  return { ids: packed, cuSeqlens };
}
