import type { AdapterRecord } from "../../adapter/record.js";
import type { NativeEncoder } from "../../native/types.js";
import { VERSION } from "../../version.js";
import type { EvalMetrics } from "../evaluation/evaluate.js";
import { snakeCaseKeys } from "../json-line.js";
import { type ResolvedTrainOptions, writableOptions } from "../options/options.js";
import type { Plan, TrainData } from "../preparation.js";
import { saveTrained } from "../trained.js";
import type { SavedContent } from "./output-content.js";

/** Where a run stands when it saves. */
export interface RunState {
  step: number;
  epoch: number;
  /** Metrics before training, if they were measured. */
  before: EvalMetrics | undefined;
  /** Metrics of the weights as they stand, if they were measured. */
  now: EvalMetrics | undefined;
}

/** What a run trains as it stands, an adapter or the whole model, ready to be written. */
export function savedContent(
  plan: Plan,
  data: TrainData,
  native: NativeEncoder,
  state: RunState,
): SavedContent {
  const { adapter, model } = plan;
  const saveWeights = (file: string): Promise<void> => saveTrained(plan, native, file);
  const record = recordOf(plan, data, state);
  if (adapter !== undefined) return { saveWeights, config: adapter.config, model, record };
  const { pooling, maxLength, question1Prefix, question2Prefix } = plan;
  const prefixes = { query: question1Prefix, document: question2Prefix };
  const sentence = { pooling, dimension: plan.shape.hiddenSize, normalize: true, maxLength, ...prefixes };
  return { saveWeights, sentence, model, record };
}

function recordOf(plan: Plan, data: TrainData, state: RunState): AdapterRecord {
  const { options, model } = plan;
  return {
    version: VERSION,
    baseModel: model.name,
    base: data.base,
    question1Prefix: plan.question1Prefix,
    question2Prefix: plan.question2Prefix,
    pooling: plan.pooling,
    normalize: true,
    maxLength: plan.maxLength,
    threshold: state.now && "rocAuc" in state.now ? state.now.accuracyThreshold : null,
    seed: options.seed,
    step: state.step,
    epoch: state.epoch,
    training: {
      options: withoutPlaces(options),
      base_commit: model.hub?.commit ?? null,
      base_held_as: snakeCaseKeys(plan.storage ?? { format: "float32" }),
      train_pairs: data.training.count,
      train_sha256: data.training.sha256,
      eval_pairs: data.evaluation?.count ?? 0,
      eval_sha256: data.evaluation?.sha256 ?? null,
      metrics_before: snakeCaseKeys(state.before ?? null),
      metrics: snakeCaseKeys(state.now ?? null),
    },
  };
}

const PLACES = new Set([
  "output_dir",
  "overwrite_output_dir",
  "resume_from_checkpoint",
  "report",
  "push_to_hub",
  "hub_model_id",
  "hub_private_repo",
  "with_tracking",
  "report_to",
  "logging_dir",
]);

/** Options without those that say where, so that a run into another folder writes the same bytes. */
function withoutPlaces(options: ResolvedTrainOptions): object {
  const kept = Object.entries(writableOptions(options)).filter(([name]) => !PLACES.has(name));
  return Object.fromEntries(kept);
}
