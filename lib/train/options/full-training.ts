import { PeftTrainError } from "../../errors.js";
import type { ModelFolder } from "../../model/folder.js";
import { describeStorage } from "../../model/storage.js";
import { type OptionDefinition, type OptionName, TRAIN_OPTIONS } from "./option-table.js";
import type { Label } from "./option-value.js";
import type { ResolvedTrainOptions } from "./options.js";

// `--no-use_peft`: all parameters of the model train.

/** Options of an adapter, which say nothing where there is none. */
export const ADAPTER_OPTIONS = (Object.keys(TRAIN_OPTIONS) as OptionName[]).filter((name) => {
  const { group }: OptionDefinition = TRAIN_OPTIONS[name];
  return group === "LoRA" && name !== "use_peft";
});

const HINT = "Leave it out, or train a LoRA adapter.";

/**
 * Refuses what is of an adapter, or of weights that stand still.
 * @param given By flag, as far as it was said.
 * @throws USAGE
 */
export function checkFullTraining(
  options: ResolvedTrainOptions,
  given: Partial<Record<OptionName, unknown>>,
  label: Label,
): void {
  if (options.usePeft) return;
  const off = `${label("use_peft")}=false`;
  const idle = ADAPTER_OPTIONS.find((name) => given[name] !== undefined && given[name] !== null);
  if (idle !== undefined) {
    throw new PeftTrainError("USAGE", `${label(idle)} is of a LoRA adapter, and ${off} trains none`, {
      hint: `Leave one of them out.`,
    });
  }
  const held = [
    options.loadIn4bit && label("load_in_4bit"),
    options.loadIn8bit && label("load_in_8bit"),
    options.compute === "int8" && `${label("compute")}=int8`,
    (options.torchDtype ?? "float32") !== "float32" && `${label("torch_dtype")}=${options.torchDtype}`,
  ].find((flag) => typeof flag === "string");
  if (held === undefined) return;
  throw new PeftTrainError(
    "USAGE",
    `${held} is for weights that stand still; with ${off} all of them train, in float32`,
    {
      hint: HINT,
    },
  );
}

/** @throws USAGE for a model whose weights are quantised. */
export function requireTrainable({ quantized, name }: ModelFolder): void {
  if (quantized === undefined) return;
  throw new PeftTrainError(
    "USAGE",
    `the weights of ${name} are quantised, as ${describeStorage(quantized)}, and do not train: --use_peft=false`,
    { hint: "Give the folder of the model before quantisation, or train a LoRA adapter." },
  );
}

/** From here on, a rate is more an adapter's. */
const HIGH_RATE = 2e-4;

export function fullTrainingWarnings({ learningRate }: ResolvedTrainOptions): string[] {
  if (learningRate < HIGH_RATE) return [];
  return [
    `--learning_rate=${learningRate} is usual for an adapter; where all parameters train, 1e-5 to 5e-5 forget less`,
  ];
}
