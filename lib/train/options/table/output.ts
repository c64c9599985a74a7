import { MOST, type OptionDefinition } from "./definition.js";

/** What a run writes, and where. */
export const OUTPUT_OPTIONS = {
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
    doc: "steps that a logged loss is the mean of; a GPU is waited for only so often",
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
} as const satisfies Record<string, OptionDefinition>;
