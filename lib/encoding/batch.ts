import type { TokenBatch } from "../native/types.js";
import type { BatchingSettings } from "./batching.js";
import type { EncodeCall } from "./call.js";

/** Texts of one call within a batch. */
export interface BatchPart {
  call: EncodeCall;
  /** Token ids of each text. */
  texts: Int32Array[];
  /** The adapter of each text. */
  adapters: (string | false)[];
}

/** Texts that run through the encoder together, those of one call side by side. */
export interface Batch {
  parts: BatchPart[];
  normalize: boolean;
}

/** Part of a batch that each call gets before the first one gets more. */
const SHARE = 1 / 16;

/**
 * Takes the next batch from calls that wait, about as many tokens of each as of the others; undefined when no text is tokenised. The
 * first call is always served.
 */
export function fillBatch(
  calls: readonly EncodeCall[],
  { together, maxBatchTokens }: Pick<BatchingSettings, "together" | "maxBatchTokens">,
): Batch | undefined {
  const ready = calls.filter((call) => call.peek() !== undefined);
  const [first] = ready;
  if (first === undefined) return undefined;
  const { normalize } = first;
  const alike = together ? ready.filter((call) => call.normalize === normalize) : [first];
  const parts = alike.map((call) => ({
    call,
    texts: [] as Int32Array[],
    adapters: [] as (string | false)[],
    tokens: 0,
  }));
  let tokens = 0;
  let open = parts;
  for (let turn = 1; open.length > 0; turn++) {
    const share = turn * SHARE * maxBatchTokens;
    open = open.filter((part) => {
      while (part.tokens < share) {
        const next = part.call.peek();
        if (next === undefined) return false;
        if (tokens > 0 && tokens + next.length > maxBatchTokens) return false;
        part.texts.push(part.call.take());
        part.adapters.push(next.settings.adapter);
        part.tokens += next.length;
        tokens += next.length;
      }
      return true;
    });
  }
  return { parts: parts.filter(({ texts }) => texts.length > 0), normalize };
}

/** The texts of all parts as the engine takes them. */
export function packParts(parts: readonly BatchPart[]): TokenBatch {
  const texts = parts.flatMap((part) => part.texts);
  const cuSeqlens = new Int32Array(texts.length + 1);
  for (const [i, { length }] of texts.entries()) cuSeqlens[i + 1] = (cuSeqlens[i] as number) + length;
  const ids = new Int32Array(cuSeqlens[texts.length] as number);
  for (const [i, text] of texts.entries()) ids.set(text, cuSeqlens[i]);
  return { ids, cuSeqlens };
}
