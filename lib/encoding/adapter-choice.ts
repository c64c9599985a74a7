import type { AdapterChoice } from "../native/types.js";

/** The engine's words for the adapter of each text; false for the base model. */
export function adapterChoice(ofTexts: readonly (string | false)[]): AdapterChoice {
  const different = new Set(ofTexts);
  if (different.size <= 1) return { adapter: ofTexts[0] ?? false };
  const adapters = [...different].filter((name) => name !== false);
  const places = new Map<string | false, number>(adapters.map((name, i) => [name, i]));
  return {
    adapter: false,
    adapters,
    adapterOfText: Int32Array.from(ofTexts, (name) => places.get(name) ?? -1),
  };
}
