export {
  type CombineResult,
  combineAdapters,
  type WeightedAdapter,
} from "./adapter/combine.js";
export { COMBINATION_METHODS, type CombinationMethod } from "./adapter/combine-factors.js";
export type { CombineOptions } from "./adapter/combine-options.js";
export type { CombinedModuleNorms, CombinedNorms } from "./adapter/combined-norms.js";
export {
  type AdapterDifference,
  diffAdapters,
  type ModuleDifference,
  type ParameterDifference,
} from "./adapter/difference.js";
export type { AdapterOptions, EncoderAdapter } from "./adapter/loaded.js";
export type { SettingDifference } from "./adapter/setting-differences.js";
export type { RetrievalFiles } from "./data/retrieval-set.js";
export { Encoder, type PendingCalls } from "./encoder.js";
export type {
  CountTokensOptions,
  EncodeTextsOptions,
  EvaluateFileOptions,
  EvaluateLabelsOptions,
  LoadOptions,
  RetrievalOptions,
  SimilarityOptions,
} from "./encoder-options.js";
export type { BatchingOptions } from "./encoding/batching.js";
export type { TextDefaults } from "./encoding/encoder-adapters.js";
export type { MergeAdapterOptions, MergeAdapterResult } from "./encoding/merge-adapter.js";
export { ERROR_CODES, type ErrorCode, PeftTrainError } from "./errors.js";
export {
  type ExportFormat,
  type ExportOptions,
  type ExportResult,
  exportModel,
} from "./export/export.js";
export type { AdapterDescription, CheckpointDescription } from "./inspect/adapter.js";
export { type Inspection, inspect, type Problem } from "./inspect/inspect.js";
export type { ModelDescription } from "./inspect/model.js";
export type { TensorDescription, TensorsDescription } from "./inspect/tensors.js";
export { type ConvertOptions, type ConvertResult, convert } from "./merge/convert.js";
export { type MergeOptions, type MergeResult, type MergeType, mergeAdapter } from "./merge/merge.js";
export type { VectorDrift } from "./metrics/vector-drift.js";
export type {
  EncoderInfo,
  MemoryPlan,
  Pooling,
  QuantizeReport,
  WeightFormat,
  WeightStorage,
} from "./native/types.js";
export { type QuantizeModelOptions, type QuantizeResult, quantize } from "./quantize.js";
export { ensureLibtorch, type InstallOptions, type SetupProgress } from "./setup/install.js";
export type {
  EvalMetrics,
  LabelMetrics,
  ScoreMetrics,
  TeacherMetrics,
  TripletMetrics,
} from "./train/evaluation/evaluate.js";
export type { RetrievalMetrics } from "./train/evaluation/evaluate-retrieval.js";
export type {
  BestEvaluation,
  DownloadingEvent,
  EvaluatedEvent,
  EvaluatingEvent,
  Evaluation,
  FinishedEvent,
  LogEvent,
  MemoryEvent,
  PreparingEvent,
  PushedEvent,
  ReadingEvent,
  ResumedEvent,
  SavedEvent,
  SavedFile,
  SkippedEvent,
  StartedEvent,
  StepEvent,
  TrackingEvent,
  TrainEvent,
  TrainResult,
  WarningEvent,
} from "./train/events.js";
export {
  type TenantEvent,
  type TenantOutcome,
  TrainManyRun,
  trainMany,
} from "./train/many/train-many.js";
export type { TrainOptions } from "./train/options/options.js";
export type { QuantizeSettings } from "./train/options/quantize-settings.js";
export { type TrainEnvironment, TrainRun, train } from "./train/train.js";
export { VERSION } from "./version.js";
