import { setImmediate } from "node:timers/promises";
import type { Tokenizer } from "../data/tokenizer.js";
import { PeftTrainError } from "../errors.js";
import type { EncodeCall } from "./call.js";

/** Texts and characters that are tokenised without a look at the event loop: well below a millisecond. */
const TEXTS_A_SLICE = 32;
const CHARACTERS_A_SLICE = 2048;
/** Characters of a text that count: the tokenizer reads on for as long as it needs tokens, whatever comes after. */
const CHARACTERS_A_TOKEN = 8;
const MILLISECONDS_A_TURN = 1;

/** Texts of one call, one after another. */
interface Stretch {
  call: EncodeCall;
  texts: string[];
}

/**
 * Tokenises the texts of all calls, a slice at a time: small calls go together, large ones take turns with the others, none runs
 * further ahead of the encoder than `aheadTokens`, and between slices the event loop gets its turn.
 */
export class TextFeed {
  private calls: EncodeCall[] = [];
  private running = false;

  constructor(
    private readonly tokenizer: Pick<Tokenizer, "encode">,
    private readonly aheadTokens: number,
    /** Called when calls have more tokens than before. */
    private readonly onTokens: () => void,
  ) {}

  add(call: EncodeCall): void {
    this.calls.push(call);
    this.wake();
  }

  /** To be called when tokens were taken from calls. */
  wake(): void {
    if (!this.running) void this.run();
  }

  private async run(): Promise<void> {
    this.running = true;
    // Calls that are made in one turn of the event loop are tokenised together.
    await setImmediate();
    let turnBegan = performance.now();
    for (let slice = this.nextSlice(); slice.length > 0; slice = this.nextSlice()) {
      await this.tokenize(slice);
      this.onTokens();
      if (performance.now() - turnBegan < MILLISECONDS_A_TURN) continue;
      await setImmediate();
      turnBegan = performance.now();
    }
    this.running = false;
  }

  /** Stretches of texts of one `maxLength`; calls that got a turn go to the end. */
  private nextSlice(): Stretch[] {
    const slice: Stretch[] = [];
    const passedOver: EncodeCall[] = [];
    const room = { texts: TEXTS_A_SLICE, characters: CHARACTERS_A_SLICE };
    let maxLength: number | undefined;
    for (const call of this.calls) {
      if (call.settled || call.tokenized === call.texts.length) continue;
      const wanted = call.settings(call.tokenized).maxLength;
      const fits = room.texts > 0 && room.characters > 0 && wanted === (maxLength ?? wanted);
      if (!fits || call.readyTokens >= this.aheadTokens) {
        passedOver.push(call);
        continue;
      }
      const texts = stretchOf(call, wanted, room);
      if (texts === undefined) continue;
      slice.push({ call, texts });
      maxLength = wanted;
    }
    this.calls = [...passedOver, ...slice.map(({ call }) => call)];
    return slice;
  }

  private async tokenize(slice: readonly Stretch[]): Promise<void> {
    const [first] = slice as [Stretch];
    const { maxLength } = first.call.settings(first.call.tokenized);
    try {
      const { ids, cuSeqlens } = await this.tokenizer.encode(
        slice.flatMap(({ texts }) => texts),
        maxLength,
      );
      let from = 0;
      for (const { call, texts } of slice) {
        const offsets = cuSeqlens.subarray(from, from + texts.length + 1);
        const [begin, end] = [offsets[0] as number, offsets[texts.length] as number];
        call.addTokens({ ids: ids.subarray(begin, end), cuSeqlens: offsets.map((at) => at - begin) });
        from += texts.length;
      }
    } catch (error) {
      for (const { call } of slice) call.fail(error);
    }
  }
}

/** The next texts of a call with their prefixes, as many as there is room for; undefined when the call fails. */
function stretchOf(
  call: EncodeCall,
  maxLength: number,
  room: { texts: number; characters: number },
): string[] | undefined {
  const texts: string[] = [];
  for (let i = call.tokenized; i < call.texts.length && room.texts > 0 && room.characters > 0; i++) {
    const { prefix, maxLength: wanted } = call.settings(i);
    if (wanted !== maxLength) break;
    const text: unknown = call.texts[i];
    if (typeof text !== "string") {
      const message = `texts: expected an array of strings, found ${typeof text} at ${i}`;
      call.fail(new PeftTrainError("USAGE", message));
      return undefined;
    }
    texts.push(prefix === "" ? text : prefix + text);
    room.texts--;
    room.characters -= Math.min(text.length, CHARACTERS_A_TOKEN * maxLength) + 1;
  }
  return texts;
}
