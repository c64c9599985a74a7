import type { InputSite, LoraModule } from "../native/types.js";
import type { LoraConfig } from "./lora-config.js";

/** How many times its rank a matrix may get, as PEFT's EvaConfig. */
export const EVA_RHO = 2;

/** Principal components of what goes into a matrix of the encoder, over texts. */
export interface InputDirections {
  /** [count, inputs], of length 1, the largest variance first. */
  components: Float32Array;
  /** Their parts of the whole variance. */
  ratios: Float32Array;
}

/**
 * Where the inputs of modules are measured, and how many components are wanted: matrices that read the same input share a site. The
 * pooler, which no vector passes, has none.
 * @param widest Numbers in an input of a matrix.
 */
export function evaSites(
  modules: readonly LoraModule[],
  rho: number,
  widest: (site: Omit<InputSite, "count">) => number,
): InputSite[] {
  const sites = new Map<string, InputSite>();
  for (const { name, rank } of modules) {
    const site = siteOf(name);
    if (site === undefined) continue;
    const count = Math.max(sites.get(keyOf(site))?.count ?? 0, roundHalfEven(rank * rho));
    sites.set(keyOf(site), { ...site, count: Math.min(count, widest(site)) });
  }
  return [...sites.values()];
}

/** What EVA makes of an adapter: its configuration, and A of its modules by name. */
export interface EvaBeginning {
  lora: LoraConfig;
  a: Record<string, Float32Array>;
}

/**
 * Gives every module the components of its input for A, and as many as are among the largest of all: ranks move from inputs that
 * few directions explain to those that need many, and the sum stays. A module that is left without one is left out; alpha follows
 * the rank, so that the scale stays. As PEFT's tuners/lora/eva.py; Paischer et al., https://arxiv.org/abs/2410.07170.
 * @param directions By the key of the site, `<layer>.<matrix>`.
 */
export function beginWithEva(
  lora: LoraConfig,
  modules: readonly LoraModule[],
  directions: ReadonlyMap<string, InputDirections>,
): EvaBeginning {
  const ranks = distribute(modules, directions);
  const rankPattern: Record<string, number> = {};
  const alphaPattern: Record<string, number> = {};
  const a: Record<string, Float32Array> = {};
  const left: string[] = [];
  for (const { name, rank, scale } of modules) {
    const found = ranks.get(name) ?? rank;
    if (found === 0) continue;
    left.push(name);
    const alpha = scale * (lora.useRslora ? Math.sqrt(rank) : rank) * (found / rank);
    if (found !== lora.r) rankPattern[name] = found;
    // Divided and multiplied by the same numbers: off by its last bits at most.
    const exact = Number(alpha.toPrecision(12));
    if (exact !== lora.loraAlpha) alphaPattern[name] = exact;
    const site = siteOf(name);
    const of = site && directions.get(keyOf(site));
    if (of === undefined) continue;
    const inputs = of.components.length / of.ratios.length;
    a[name] = of.components.slice(0, found * inputs);
  }
  const named = { targetModules: left, excludeModules: null, layersToTransform: null, layersPattern: null };
  return { lora: { ...lora, ...named, rankPattern, alphaPattern }, a };
}

/** The rank of every module whose input was measured. */
function distribute(
  modules: readonly LoraModule[],
  directions: ReadonlyMap<string, InputDirections>,
): Map<string, number> {
  const firstOf = new Map<string, string>();
  const measured = modules.flatMap(({ name, rank }) => {
    const site = siteOf(name);
    const ratios = site && directions.get(keyOf(site))?.ratios;
    if (site === undefined || ratios === undefined) return [];
    const key = keyOf(site);
    if (!firstOf.has(key)) firstOf.set(key, name);
    return [{ name, rank, ratios, first: firstOf.get(key) as string }];
  });
  const budget = measured.reduce((sum, { rank }) => sum + rank, 0);
  // The first reader of each input comes before all others, which decides between equals.
  const inOrder = [
    ...measured.filter(({ name, first }) => name === first),
    ...measured.filter(({ name, first }) => name !== first),
  ];
  const all = inOrder.flatMap(({ name, ratios }) => Array.from(ratios, (ratio) => ({ name, ratio })));
  const counts = new Map(measured.map(({ name }) => [name, 0]));
  for (const { name } of all.sort((x, y) => y.ratio - x.ratio).slice(0, budget)) {
    counts.set(name, (counts.get(name) as number) + 1);
  }
  for (const { name, first } of inOrder) {
    const [rank, ofFirst] = [counts.get(name) as number, counts.get(first) as number];
    if (ofFirst >= rank) continue;
    counts.set(first, rank);
    counts.set(name, ofFirst);
  }
  return counts;
}

/** `<layer>.<matrix>` */
export function keyOf({ layer, matrix }: Omit<InputSite, "count">): string {
  return `${layer}.${matrix}`;
}

function siteOf(module: string): Omit<InputSite, "count"> | undefined {
  const [, layer, rest = ""] = /^encoder\.layer\.(\d+)\.(.+)$/.exec(module) ?? [];
  const matrix = MATRICES[rest];
  return matrix && { layer: Number(layer), matrix };
}

const MATRICES: Record<string, InputSite["matrix"]> = {
  "attention.self.query": "qkv",
  "attention.self.key": "qkv",
  "attention.self.value": "qkv",
  "attention.output.dense": "attentionOutput",
  "intermediate.dense": "intermediate",
  "output.dense": "output",
};

/** As Python rounds. */
function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
