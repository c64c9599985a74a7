import { setImmediate } from "node:timers/promises";
import type { Tokenizer } from "../data/tokenizer.js";
import type { TextSettings } from "./call.js";

const TEXTS_A_TURN = 32;

/** Tokens of each text as `encode` cuts it, [CLS] and [SEP] counted. The event loop gets its turn between some texts and the next. */
export async function countTokens(
  tokenizer: Pick<Tokenizer, "encode">,
  texts: readonly string[],
  settings: (i: number) => TextSettings,
): Promise<number[]> {
  const counts: number[] = [];
  for (let start = 0; start < texts.length; ) {
    if (start > 0) await setImmediate();
    const { maxLength } = settings(start);
    let end = start;
    const some: string[] = [];
    while (end < texts.length && some.length < TEXTS_A_TURN && settings(end).maxLength === maxLength) {
      some.push(settings(end).prefix + texts[end]);
      end++;
    }
    const { cuSeqlens } = await tokenizer.encode(some, maxLength);
    for (let i = 0; i < some.length; i++) {
      counts.push((cuSeqlens[i + 1] as number) - (cuSeqlens[i] as number));
    }
    start = end;
  }
  return counts;
}
