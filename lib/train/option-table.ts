import { METRIC_NAMES } from "./best-metric.js";
import { DISTANCES, LOSS_NAMES } from "./losses.js";
import { SCHEDULES } from "./schedule.js";

interface Described {
  group: OptionGroup;
  doc: string;
  /** Another name that scripts use for the flag. */
  alias?: string;
}

/** One training option: its type, default and range. A `null` default means "not given". */
export type OptionDefinition = Described &
  (
    | {
        type: "string";
        default: string | null;
        mayBeEmpty?: true;
        choices?: readonly string[];
        required?: true;
        pattern?: RegExp;
        /** What the pattern takes, in words. */
        expected?: string;
      }
    | { type: "boolean"; default: boolean | null }
    | {
        type: "integer" | "number";
        default: number | null;
        min: number;
        max: number;
        above?: true;
        below?: true;
        powerOfTwo?: true;
      }
    | { type: "targets"; default: readonly string[] }
    | { type: "names"; default: null }
    | { type: "numbers"; default: null; min: number; max: number; whole?: true }
    | { type: "checkpoints"; default: null }
    | { type: "settings"; default: null }
  );

export const OPTION_GROUPS = [
  "Model",
  "Weights",
  "Data",
  "Loss",
  "LoRA",
  "Training",
  "Evaluation",
  "Output",
  "Tracking",
  "Hub",
  "Machine",
] as const;
export type OptionGroup = (typeof OPTION_GROUPS)[number];

const MOST = 2 ** 31 - 1;
/** Optimiser steps of a run: the number of a step keys its dropout masks in 32 bits. */
export const MOST_STEPS = MOST;

/**
 * Every training option by its flag: the one place that the command line, the library and the documentation take
 * names, types, defaults and ranges from. `above` and `below` leave out the end of the range itself.
 */
export const TRAIN_OPTIONS = {
  model_name_or_path: {
    group: "Model",
    type: "string",
    default: null,
    required: true,
    doc: "folder of the base model (config.json, model.safetensors, tokenizer.json), or its name on the Hugging Face Hub: owner/name or owner/name@revision",
  },
  pooling: {
    group: "Model",
    type: "string",
    default: null,
    choices: ["mean", "cls"],
    doc: "how token vectors become one; default: what 1_Pooling/config.json says, or mean",
  },
  max_length: {
    group: "Model",
    type: "integer",
    default: null,
    min: 3,
    max: MOST,
    doc: "tokens of a text, [CLS] and [SEP] counted; longer texts are cut; default: 128, or the model's most",
  },
  dropout: {
    group: "Model",
    type: "number",
    default: null,
    min: 0,
    max: 1,
    below: true,
    doc: "dropout of hidden states and attention while training; default: the model's config.json",
  },
  load_in_4bit: {
    group: "Weights",
    type: "boolean",
    default: false,
    doc: "hold the base model's frozen matrices in 4 bits a weight (QLoRA)",
  },
  bnb_4bit_quant_type: {
    group: "Weights",
    type: "string",
    default: null,
    choices: ["nf4", "fp4"],
    doc: "code book of the 4 bits; default: nf4",
  },
  bnb_4bit_use_double_quant: {
    group: "Weights",
    type: "boolean",
    default: null,
    doc: "hold the scales of the blocks in 8 bits too",
  },
  quant_block_size: {
    group: "Weights",
    type: "integer",
    default: null,
    min: 32,
    max: 4096,
    powerOfTwo: true,
    doc: "weights that share one scale in 4 bits; default: 64",
  },
  outlier_fraction: {
    group: "Weights",
    type: "number",
    default: null,
    min: 0,
    max: 0.1,
    doc: "part of the weights kept in float16 beside the 4-bit codes: those whose rounding costs most; default: 0",
  },
  load_in_8bit: {
    group: "Weights",
    type: "boolean",
    default: false,
    doc: "hold the base model's frozen matrices in 8 bits a weight (LLM.int8)",
  },
  outlier_threshold: {
    group: "Weights",
    type: "number",
    default: null,
    min: 0,
    max: 1e9,
    doc: "8 bits: what goes into a matrix at this magnitude or more is multiplied in float16; 0: nothing; default: 6",
  },
  compute: {
    group: "Weights",
    type: "string",
    default: "float32",
    choices: ["float32", "int8"],
    doc: "what frozen matrices are multiplied in; int8 holds them in 8 bits and rounds inputs and gradients too: about twice as fast on CPUs with VNNI",
  },
  torch_dtype: {
    group: "Weights",
    type: "string",
    default: null,
    choices: ["float32", "float16", "bfloat16"],
    alias: "dtype",
    doc: "how frozen matrices are held that are not quantised; default: float32",
  },
  dataset_name: {
    group: "Data",
    type: "string",
    default: null,
    required: true,
    doc: "file of examples to train on: CSV, TSV or JSON Lines, gzip or not",
  },
  eval_dataset_name: {
    group: "Data",
    type: "string",
    default: null,
    doc: "file of examples to measure on: ROC AUC of labelled pairs, Spearman of scored ones, accuracy of triplets",
  },
  eval_fraction: {
    group: "Data",
    type: "number",
    default: null,
    min: 0,
    max: 1,
    above: true,
    below: true,
    doc: "in place of that file: set this part of the training examples aside, drawn by the seed",
  },
  question1_column: {
    group: "Data",
    type: "string",
    default: "question1",
    alias: "anchor_column",
    doc: "column of the first text, or anchor",
  },
  question2_column: {
    group: "Data",
    type: "string",
    default: "question2",
    alias: "positive_column",
    doc: "column of the second text, or positive",
  },
  negative_column: {
    group: "Data",
    type: "names",
    default: null,
    doc: "columns of texts that mean something else than the first, with commas between",
  },
  score_column: {
    group: "Data",
    type: "string",
    default: null,
    doc: "column of a number that says how alike the two texts are, in place of a label",
  },
  label_column: {
    group: "Data",
    type: "string",
    default: "is_duplicate",
    doc: "column of the label: 1 for the same meaning, 0 for another",
  },
  prefix: {
    group: "Data",
    type: "string",
    mayBeEmpty: true,
    default: "query: ",
    doc: "put before both texts",
  },
  question1_prefix: {
    group: "Data",
    type: "string",
    mayBeEmpty: true,
    default: null,
    doc: "put before the first text instead",
  },
  question2_prefix: {
    group: "Data",
    type: "string",
    mayBeEmpty: true,
    default: null,
    doc: "put before the second text instead",
  },
  loss: {
    group: "Loss",
    type: "string",
    default: "pair",
    choices: LOSS_NAMES,
    doc: "what is minimised; docs/losses.md says which data each takes",
  },
  distance: {
    group: "Loss",
    type: "string",
    default: null,
    choices: DISTANCES,
    doc: "of contrastive, online_contrastive (default: cosine) and triplet (default: euclidean)",
  },
  margin: {
    group: "Loss",
    type: "number",
    default: null,
    min: 0,
    max: 1e6,
    doc: "of contrastive, online_contrastive (default: 0.5) and triplet (default: 5)",
  },
  scale: {
    group: "Loss",
    type: "number",
    default: null,
    min: 0,
    max: 1e6,
    above: true,
    doc: "what cosines are multiplied by in cosent, angle and multiple_negatives_ranking, the inverse of a temperature; default: 20",
  },
  teacher_embeddings: {
    group: "Loss",
    type: "string",
    default: null,
    doc: "of mse: .npy file of the vectors that the texts are to get, in the order of the file of examples",
  },
  matryoshka_dims: {
    group: "Loss",
    type: "numbers",
    default: null,
    min: 1,
    max: 65536,
    whole: true,
    doc: "train vectors that can be cut to these widths, with commas between: 384,256,128",
  },
  matryoshka_weights: {
    group: "Loss",
    type: "numbers",
    default: null,
    min: 0,
    max: 1e6,
    doc: "what the loss at each of these widths counts; default: 1",
  },
  anchor: {
    group: "Loss",
    type: "string",
    default: null,
    doc: "texts that stay where the base model has them, so that the others move to them: question1, question2 (and the negatives), or the name of that column",
  },
  keep_weight: {
    group: "Loss",
    type: "number",
    default: null,
    min: 0,
    max: 1e6,
    above: true,
    doc: "add this times 1 - cosine between the vectors of a sample of texts and those of the base model, which keeps them in place",
  },
  keep_dataset: {
    group: "Loss",
    type: "string",
    default: null,
    doc: "file of that sample's texts, on others of which drift is measured; default: the anchored texts of --dataset_name, or all of its texts",
  },
  keep_column: {
    group: "Loss",
    type: "string",
    default: "text",
    doc: "column of that file with the texts",
  },
  sanity_test: {
    group: "Data",
    type: "boolean",
    default: false,
    doc: "use the first 1,024 examples of each file only",
  },
  use_peft: { group: "LoRA", type: "boolean", default: true, doc: "train a LoRA adapter" },
  lora_r: { group: "LoRA", type: "integer", default: 8, min: 1, max: 65536, doc: "rank" },
  lora_alpha: {
    group: "LoRA",
    type: "number",
    default: 16,
    min: 0,
    max: 1e6,
    above: true,
    doc: "the update is scaled by alpha / r",
  },
  lora_dropout: {
    group: "LoRA",
    type: "number",
    default: 0,
    min: 0,
    max: 1,
    below: true,
    doc: "dropout on what goes into the adapter, while training",
  },
  lora_target_modules: {
    group: "LoRA",
    type: "targets",
    default: ["query", "key", "value"],
    doc: "names (whole or last parts) with commas or blanks between, a regular expression over whole names, or all-linear",
  },
  use_rslora: { group: "LoRA", type: "boolean", default: false, doc: "scale by alpha / sqrt(r) instead" },
  num_train_epochs: {
    group: "Training",
    type: "integer",
    default: 3,
    min: 1,
    max: 100_000,
    doc: "passes over the pairs",
  },
  max_train_steps: {
    group: "Training",
    type: "integer",
    default: null,
    min: 1,
    max: MOST,
    doc: "optimiser steps of the whole run; overrides --num_train_epochs",
  },
  per_device_train_batch_size: {
    group: "Training",
    type: "integer",
    default: 64,
    min: 1,
    max: 65536,
    doc: "pairs in a batch",
  },
  per_device_eval_batch_size: {
    group: "Training",
    type: "integer",
    default: 128,
    min: 1,
    max: 65536,
    doc: "pairs encoded at a time when evaluating",
  },
  gradient_accumulation_steps: {
    group: "Training",
    type: "integer",
    default: 1,
    min: 1,
    max: 65536,
    doc: "batches in an optimiser step, whose gradient is that of all their pairs",
  },
  learning_rate: {
    group: "Training",
    type: "number",
    default: 5e-4,
    min: 0,
    max: 1,
    above: true,
    doc: "Adam's learning rate at its highest",
  },
  lr_scheduler_type: {
    group: "Training",
    type: "string",
    default: "linear",
    choices: SCHEDULES,
    doc: "how the learning rate changes",
  },
  num_warmup_steps: {
    group: "Training",
    type: "integer",
    default: 0,
    min: 0,
    max: MOST,
    doc: "steps over which it rises from 0 first",
  },
  warmup_ratio: {
    group: "Training",
    type: "number",
    default: 0,
    min: 0,
    max: 1,
    doc: "the same as a part of all steps; num_warmup_steps comes before it",
  },
  lr_scheduler_kwargs: {
    group: "Training",
    type: "settings",
    default: null,
    doc: "settings of the schedule as JSON, named as in transformers: '{\"num_cycles\": 3}'",
  },
  weight_decay: {
    group: "Training",
    type: "number",
    default: 0,
    min: 0,
    max: 1,
    doc: "decoupled decay, as AdamW",
  },
  adam_beta1: {
    group: "Training",
    type: "number",
    default: 0.9,
    min: 0,
    max: 1,
    below: true,
    doc: "Adam's beta 1",
  },
  adam_beta2: {
    group: "Training",
    type: "number",
    default: 0.999,
    min: 0,
    max: 1,
    below: true,
    doc: "Adam's beta 2",
  },
  adam_epsilon: {
    group: "Training",
    type: "number",
    default: 1e-8,
    min: 0,
    max: 1,
    above: true,
    doc: "Adam's epsilon",
  },
  max_grad_norm: {
    group: "Training",
    type: "number",
    default: 0,
    min: 0,
    max: 1e9,
    doc: "clip the norm of the gradient to this; 0 leaves it alone",
  },
  activation_checkpointing: {
    group: "Training",
    type: "boolean",
    default: false,
    alias: "gradient_checkpointing",
    doc: "compute activations again in the backward pass instead of keeping them: the same result, about a third slower, in a fraction of the memory",
  },
  seed: {
    group: "Training",
    type: "integer",
    default: 42,
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    doc: "of the initial weights, the order of the pairs and dropout",
  },
  eval_steps: {
    group: "Evaluation",
    type: "checkpoints",
    default: null,
    doc: "measure every N optimiser steps and after the last, or after every epoch; default: epoch",
  },
  metric_for_best_model: {
    group: "Evaluation",
    type: "string",
    default: null,
    pattern: new RegExp(`^(eval_)?(${METRIC_NAMES.join("|")})$`),
    expected: `one of ${METRIC_NAMES.join(", ")}, with or without eval_ before it`,
    doc: "what tells the best evaluation; default: roc_auc of labelled pairs, spearman of scored ones, triplet_accuracy, teacher_cosine",
  },
  greater_is_better: {
    group: "Evaluation",
    type: "boolean",
    default: null,
    doc: "whether a higher value of it is better; default: true, but for loss",
  },
  load_best_model_at_end: {
    group: "Evaluation",
    type: "boolean",
    default: false,
    doc: "keep the adapter of the best evaluation in the output folder, not that of the last step",
  },
  early_stopping_patience: {
    group: "Evaluation",
    type: "integer",
    default: null,
    min: 1,
    max: MOST,
    doc: "end after so many evaluations in a row that are no better than the best before them",
  },
  early_stopping_threshold: {
    group: "Evaluation",
    type: "number",
    default: null,
    min: 0,
    max: 1e9,
    doc: "a gain up to this counts as none for early_stopping_patience; default: 0",
  },
  output_dir: {
    group: "Output",
    type: "string",
    default: null,
    required: true,
    doc: "folder for the adapter",
  },
  overwrite_output_dir: {
    group: "Output",
    type: "boolean",
    default: false,
    doc: "replace an earlier run's files in that folder, or write among others'",
  },
  checkpointing_steps: {
    group: "Output",
    type: "checkpoints",
    default: null,
    doc: "save a checkpoint every N steps (step_N), or after every epoch (epoch_N)",
  },
  save_total_limit: {
    group: "Output",
    type: "integer",
    default: null,
    min: 1,
    max: MOST,
    doc: "keep this many checkpoints, the newest; default: all",
  },
  resume_from_checkpoint: {
    group: "Output",
    type: "string",
    default: null,
    doc: "go on from this checkpoint's folder, or from the latest in --output_dir that is whole",
  },
  logging_steps: {
    group: "Output",
    type: "integer",
    default: 100,
    min: 1,
    max: MOST,
    doc: "steps that a logged loss is the mean of",
  },
  report: {
    group: "Output",
    type: "boolean",
    default: true,
    doc: "write report.html: curves, scores before and after, the worst mistakes with their texts; --no-report: none, and its data is not kept",
  },
  with_tracking: {
    group: "Tracking",
    type: "boolean",
    default: false,
    doc: "write losses and metrics for a tracker",
  },
  report_to: {
    group: "Tracking",
    type: "string",
    default: null,
    choices: ["tensorboard", "wandb", "all", "none"],
    doc: "which tracker: TensorBoard, Weights & Biases (an offline run, for wandb sync) or both; default: all with --with_tracking",
  },
  logging_dir: {
    group: "Tracking",
    type: "string",
    default: null,
    doc: "folder of TensorBoard's event files; default: runs in the output folder, from the first save on",
  },
  push_to_hub: {
    group: "Hub",
    type: "boolean",
    default: false,
    doc: "after training, upload the adapter with a model card",
  },
  hub_model_id: {
    group: "Hub",
    type: "string",
    default: null,
    pattern: /^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/,
    expected: "owner/name or name",
    doc: "repository to upload to, as owner/name; default: the output folder's name, under the token's user",
  },
  hub_token: {
    group: "Hub",
    type: "string",
    default: null,
    doc: "token for the Hub; default: HF_TOKEN, or that of hf auth login",
  },
  hub_private_repo: {
    group: "Hub",
    type: "boolean",
    default: false,
    doc: "make the repository private, where it is new",
  },
  device: {
    group: "Machine",
    type: "string",
    default: "cpu",
    pattern: /^(cpu|cuda(:\d{1,3})?)$/,
    expected: "cpu, cuda or cuda:N",
    doc: "where to run: cpu, cuda or cuda:N",
  },
  num_threads: {
    group: "Machine",
    type: "integer",
    default: 0,
    min: 0,
    max: 1024,
    doc: "threads of the matrix products; 0: one a physical core",
  },
  mixed_precision: {
    group: "Machine",
    type: "string",
    default: "no",
    choices: ["no", "fp16", "bf16", "fp8"],
    doc: "operands of the frozen products in 16 bits, sums and adapter in float32; fp16 with a loss scale. fp8 is not there yet",
  },
} as const satisfies Record<string, OptionDefinition>;

export type OptionName = keyof typeof TRAIN_OPTIONS;

/** transformers' other way to say --mixed_precision. */
export const PRECISION_FLAGS = ["fp16", "bf16"] as const;

/**
 * Flags of the article's script and of its relatives that are understood and not there yet, with the values that ask
 * for nothing (so that scripts which spell out defaults go on working).
 */
export const UNAVAILABLE_OPTIONS: Record<string, { type: "string" | "boolean"; off: readonly string[] }> = {
  bnb_4bit_compute_dtype: { type: "string", off: ["float32"] },
  use_dora: { type: "boolean", off: ["false"] },
};
