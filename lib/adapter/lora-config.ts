/** The part of PEFT's LoraConfig that decides where LoRA sits and how strong it is; names as PEFT's, in camel case. */
export interface LoraConfig {
  /** Rank, for modules that rankPattern does not name. */
  r: number;
  loraAlpha: number;
  /** Rate of the dropout on x before A, while training. */
  loraDropout: number;
  /** Names (whole or last parts), or one string: a regular expression over whole names, or `all-linear`. */
  targetModules: readonly string[] | string;
  excludeModules: readonly string[] | string | null;
  /** The first key that matches the end of a module's name gives its rank; keys may be regular expressions. */
  rankPattern: Readonly<Record<string, number>>;
  alphaPattern: Readonly<Record<string, number>>;
  /** Scale alpha / sqrt(r) instead of alpha / r: https://arxiv.org/abs/2312.03732. */
  useRslora: boolean;
  /** Only these layers; with a list of targets only. */
  layersToTransform: readonly number[] | number | null;
  layersPattern: readonly string[] | string | null;
  initLoraWeights: LoraInit;
  /** A magnitude for every output beside the direction: https://arxiv.org/abs/2402.09353. */
  useDora: boolean;
  /** A bias on B. */
  loraBias: boolean;
  /** Which biases of the base model train along: none, those of the modules that LoRA wraps, or all. */
  bias: LoraBias;
  /** Ends of names of modules of which the adapter has a copy of its own that trains. */
  modulesToSave: readonly string[] | null;
}

export const LORA_BIASES = ["none", "all", "lora_only"] as const;
export type LoraBias = (typeof LORA_BIASES)[number];

/**
 * How A and B of a fresh adapter begin, named as in PEFT: `true` A uniform and B zero, `false` both uniform, which
 * changes the model from the start.
 */
export type LoraInit = boolean | "gaussian" | "orthogonal" | "loftq" | "eva" | SplittingInit;

/** Those that take A and B out of the base weights: https://arxiv.org/abs/2404.02948, https://arxiv.org/abs/2406.01775. */
export type SplittingInit = "pissa" | `pissa_niter_${number}` | "olora";

/** Whether such an adapter runs over what it left of the base weights, and not over these. */
export function splitsBase(init: LoraInit): init is SplittingInit {
  return init === "olora" || (typeof init === "string" && init.startsWith("pissa"));
}

/** r 8, alpha 16, no dropout on query, key and value: the article's. */
export const DEFAULT_LORA: LoraConfig = {
  r: 8,
  loraAlpha: 16,
  loraDropout: 0,
  targetModules: ["query", "key", "value"],
  excludeModules: null,
  rankPattern: {},
  alphaPattern: {},
  useRslora: false,
  layersToTransform: null,
  layersPattern: null,
  initLoraWeights: true,
  useDora: false,
  loraBias: false,
  bias: "none",
  modulesToSave: null,
};
