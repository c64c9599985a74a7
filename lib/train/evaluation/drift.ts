import { embedTexts, type PackedTexts } from "../../embed.js";
import { toldCosine } from "../../metrics/cosine.js";
import { type BaseRun, baseVectors, drawTexts } from "../step/base-texts.js";
import { distinctTexts } from "./evaluate.js";

/** The mean over so many is known to about 0.002. */
export const DRIFT_TEXTS = 1000;

/** How far texts that are not trained on have moved from where the base model has them. */
export class Drift {
  private constructor(
    private readonly texts: PackedTexts,
    private readonly base: Float32Array,
    private readonly run: BaseRun,
  ) {}

  /** Draws from these texts by the seed. @throws ABORTED when it was stopped. */
  static async prepare(from: PackedTexts, seed: number, run: BaseRun): Promise<Drift> {
    const texts = drawTexts(distinctTexts(from, 0, from.offsets.length - 1).texts, DRIFT_TEXTS, seed);
    return new Drift(texts, await baseVectors(texts, run), run);
  }

  /** Mean cosine to the base model's vectors, as they are without an adapter; undefined when it was stopped. */
  async measure(): Promise<number | undefined> {
    const { texts, base, run } = this;
    const { native, stopped } = run;
    const vectors = await embedTexts(native, texts, { adapter: true, normalize: true, stopped });
    if (vectors === undefined) return undefined;
    let sum = 0;
    for (const [i, value] of vectors.entries()) sum += value * (base[i] as number);
    return toldCosine(sum / (texts.offsets.length - 1));
  }
}
