import { PeftTrainError } from "../errors.js";
import type { CombinationMethod } from "./combine-factors.js";
import type { LoraFactors } from "./factors.js";
import type { StoredAdapter } from "./stored-adapter.js";

/**
 * What adapters add to the base can be summed without it where that is products of A and B, and biases on B; PEFT's
 * add_weighted_adapter refuses some of the rest and leaves out the other without a word.
 * @throws ADAPTER_UNSUPPORTED naming the option
 */
export function requireSummable(sources: readonly StoredAdapter[], method: CombinationMethod): void {
  for (const { name, config, own } of sources) {
    const { loftq } = config;
    const { useDora, loraBias, bias, modulesToSave } = config.lora;
    const refuse = (option: string, why: string, hint: string): never => {
      throw new PeftTrainError("ADAPTER_UNSUPPORTED", `${name} has ${option}: ${why}`, { hint });
    };
    if (useDora) {
      refuse(
        "use_dora",
        "its magnitudes stretch whole rows of the weights, so that what it adds is of no rank and no sum of such",
        MERGE_HINT,
      );
    }
    if (loftq !== undefined) {
      refuse('init_lora_weights "loftq"', "it runs over a base that PEFT quantises for it", MERGE_HINT);
    }
    if (own.size > 0) {
      const option = modulesToSave === null ? `bias ${JSON.stringify(bias)}` : "modules_to_save";
      const first = own.keys().next().value;
      refuse(
        option,
        `${first} takes the place of the base's, and a weighted sum of both needs it`,
        MERGE_HINT,
      );
    }
    if (loraBias && method !== "cat" && method !== "svd" && sources.length > 1) {
      refuse(
        "lora_bias",
        `${method} is for matrices alone`,
        "Take the method cat or svd, which sum biases exactly.",
      );
    }
  }
}

const MERGE_HINT = "npx peft-train merge puts a single one into its base.";

/** The weighted sum of biases on B, for a scale of 1. */
export function summedBias(
  terms: readonly { weight: number; factors: LoraFactors }[],
  outputs: number,
): Float64Array {
  const sum = new Float64Array(outputs);
  for (const { weight, factors } of terms) {
    factors.bias?.forEach((value, i) => {
      sum[i] = (sum[i] as number) + weight * factors.scale * value;
    });
  }
  return sum;
}
