import { access, realpath } from "node:fs/promises";
import path from "node:path";
import type { ExampleColumns, ExampleKind } from "../data/example-layout.js";
import {
  type ExampleDataset,
  type ExampleSource,
  firstExamples,
  loadExamples,
  splitExamples,
  withTargets,
} from "../data/examples.js";
import { fileError } from "../data/file-error.js";
import { readNpy } from "../data/npy-reader.js";
import { PeftTrainError } from "../errors.js";
import type { HubAccess } from "../hub/access.js";
import { type Fingerprint, fingerprint } from "../model/fingerprint.js";
import { type ModelFolder, openModelFolder } from "../model/folder.js";
import { isOnHub } from "../model/source.js";
import { chooseStorage } from "../model/storage.js";
import { loadTokenizer, requireMaxLength, trainingMaxLength } from "../model-tokenizer.js";
import type { ModelShape, Pooling, WeightStorage } from "../native/types.js";
import { bestMetric } from "./evaluation/best-metric.js";
import { DRIFT_TEXTS } from "./evaluation/drift.js";
import { PRIMARY_METRIC, requireMeasurable } from "./evaluation/evaluate.js";
import type { TrainEvent } from "./events.js";
import { fullTrainingWarnings, requireTrainable } from "./options/full-training.js";
import { type LossRequest, lossRequest } from "./options/losses.js";
import { flagLabel } from "./options/option-value.js";
import { type ResolvedTrainOptions, weightOptions } from "./options/options.js";
import { storageRequest } from "./options/weight-options.js";
import { requireFreeFolder } from "./output/output-content.js";
import { countShared } from "./overlap.js";
import { adapterWarnings, type PlannedAdapter, planAdapter } from "./planned-adapter.js";
import { evaluationKinds, examplesForLoss, trainingKinds } from "./training-examples.js";

/** A run whose options fit its model: everything that can be said without reading weights or data. */
export interface Plan {
  options: ResolvedTrainOptions;
  model: ModelFolder;
  /** The model's, with --dropout in place of its rates. */
  shape: ModelShape;
  pooling: Pooling;
  /** How the frozen weights are held; undefined for float32. */
  storage: WeightStorage | undefined;
  /** Tokens of a text, [CLS] and [SEP] counted. */
  maxLength: number;
  loss: LossRequest;
  /** Undefined where the whole model trains. */
  adapter: PlannedAdapter | undefined;
  question1Prefix: string;
  question2Prefix: string;
  warnings: string[];
}

export interface TrainData {
  training: ExampleDataset;
  evaluation: ExampleDataset | undefined;
  /** Texts of --keep_dataset, but for those whose drift is measured. */
  kept: ExampleDataset | undefined;
  /** Texts whose drift is measured beside the evaluation: some of --keep_dataset, or of the evaluation. */
  heldOut: ExampleDataset | undefined;
  base: Fingerprint;
}

/** `--sanity_test` uses so many examples of each file, as the article's script does. */
const SANITY_EXAMPLES = 1024;

/** Opens the model folder and holds the options against it. */
export async function planRun(options: ResolvedTrainOptions, hub: HubAccess = {}): Promise<Plan> {
  if (await isOnHub(options.modelNameOrPath)) await requirePlaces(options);
  const model = await openModelFolder(options.modelNameOrPath, hub);
  const maxLength = options.maxLength ?? trainingMaxLength(model);
  requireMaxLength(maxLength, model);
  await requireOtherFolder(options.outputDir, model);
  const adapter = options.usePeft ? planAdapter(options, model) : undefined;
  const storage = chooseStorage(storageRequest(weightOptions(options), flagLabel), model);
  if (adapter === undefined) requireTrainable(model);
  const loss = lossRequest(options, flagLabel);
  const dropout = options.dropout;
  return {
    options,
    model,
    shape:
      dropout === null ? model.shape : { ...model.shape, hiddenDropout: dropout, attentionDropout: dropout },
    pooling: options.pooling ?? model.pooling,
    storage,
    maxLength,
    loss,
    adapter,
    question1Prefix: options.question1Prefix ?? options.prefix,
    question2Prefix: options.question2Prefix ?? options.prefix,
    warnings: [
      ...(adapter === undefined ? fullTrainingWarnings(options) : adapterWarnings(adapter, model)),
      ...checkWidths(options.matryoshkaDims, model),
    ],
  };
}

/** A save would take away what the run reads. @throws USAGE */
async function requireOtherFolder(output: string, model: ModelFolder): Promise<void> {
  const folder = await realpath(output).catch(() => undefined);
  if (folder === undefined) return;
  const [root, inner] = await Promise.all([realpath(model.root), realpath(model.path)]);
  if (folder !== root && folder !== inner) return;
  throw new PeftTrainError("USAGE", `--output_dir=${output} is the folder of the model itself`, {
    hint: "Give another folder.",
  });
}

/** What would be found wrong only after a download otherwise. */
async function requirePlaces(options: ResolvedTrainOptions): Promise<void> {
  for (const file of [options.datasetName, options.evalDatasetName, options.keepDataset]) {
    if (file === null) continue;
    await access(file).catch((cause) => {
      throw fileError(file, cause);
    });
  }
  const { outputDir, overwriteOutputDir } = options;
  await requireFreeFolder(path.resolve(outputDir), outputDir, overwriteOutputDir);
}

/** Widths that the model's vectors have; a warning where their whole width is not among them. @throws USAGE */
function checkWidths(widths: readonly number[] | null, { shape, name }: ModelFolder): string[] {
  const wide = widths?.find((width) => width > shape.hiddenSize);
  if (wide !== undefined) {
    throw new PeftTrainError(
      "USAGE",
      `--matryoshka_dims=${widths?.join(",")}: ${wide} is wider than the vectors of ${name}, ${shape.hiddenSize}`,
    );
  }
  if (widths === null || widths.includes(shape.hiddenSize)) return [];
  return [
    `--matryoshka_dims leaves out ${shape.hiddenSize}: vectors that are not cut are not trained as such`,
  ];
}

/**
 * Reads and tokenises the examples, and hashes the base model meanwhile.
 * @throws As `loadExamples`; DATA_LABEL when a set says nothing, as one whose labels are all the same.
 */
export async function loadTrainData(plan: Plan, tell: (event: TrainEvent) => void): Promise<TrainData> {
  const { options, loss } = plan;
  const hashing = fingerprint(plan.model);
  hashing.catch(() => {}); // reported below, unless the data fails first
  const tokenizer = await loadTokenizer(plan.model);
  const load = (source: ExampleSource): Promise<ExampleDataset> =>
    loadExamples(source, tokenizer, (bytesRead, bytesTotal) => {
      tell({ event: "reading", path: source.path, bytesRead, bytesTotal });
    });
  const { question1Prefix, question2Prefix, maxLength } = plan;
  const read = async (path: string, kinds: readonly ExampleKind[]): Promise<ExampleDataset> => {
    const columns = exampleColumns(options);
    const { scoreRange } = loss;
    const source = { path, columns, kinds, scoreRange, question1Prefix, question2Prefix, maxLength };
    const dataset = await load(source);
    const { teacherEmbeddings } = options;
    const whole =
      dataset.kind === "texts" && teacherEmbeddings !== null
        ? withTargets(dataset, await readNpy(teacherEmbeddings), plan.shape.hiddenSize)
        : dataset;
    return options.sanityTest ? firstExamples(whole, SANITY_EXAMPLES) : whole;
  };
  let training = await read(options.datasetName, trainingKinds(loss));
  let evaluation: ExampleDataset | undefined;
  if (options.evalDatasetName !== null) {
    evaluation = await read(options.evalDatasetName, evaluationKinds(options));
    warnOfShared(training, evaluation, tell);
  } else if (options.evalFraction !== null) {
    ({ train: training, eval: evaluation } = splitExamples(training, options.evalFraction, options.seed));
  }
  const part = (name: string): string =>
    options.evalFraction === null ? "" : `, of which --eval_fraction=${options.evalFraction} ${name}`;
  if (evaluation !== undefined) {
    requireMeasurable(evaluation, options.labelColumn, part("set aside"));
    bestMetric(options, evaluation.kind);
  }
  const learned = examplesForLoss(training, plan, part("left for training"));
  for (const message of learned.warnings) tell({ event: "warning", message });
  const keep = await readKept(plan, load);
  return {
    training: learned.dataset,
    evaluation,
    kept: keep?.train,
    heldOut: evaluation && (keep?.eval ?? evaluation),
    base: await hashing,
  };
}

/** The texts of --keep_dataset, half of them and at most 1,000 set aside. */
async function readKept(
  { options, maxLength }: Plan,
  load: (source: ExampleSource) => Promise<ExampleDataset>,
): Promise<{ train: ExampleDataset; eval: ExampleDataset } | undefined> {
  const { keepDataset: path, keepColumn: question1, prefix, sanityTest, seed } = options;
  if (path === null) return undefined;
  const prefixes = { question1Prefix: prefix, question2Prefix: prefix };
  const whole = await load({ path, columns: { question1 }, kinds: ["texts"], maxLength, ...prefixes });
  const texts = sanityTest ? firstExamples(whole, SANITY_EXAMPLES) : whole;
  return splitExamples(texts, Math.min(1 / 2, DRIFT_TEXTS / texts.count), seed);
}

/** The columns that the options name. */
export function exampleColumns(options: ResolvedTrainOptions): ExampleColumns {
  return {
    question1: options.question1Column,
    question2: options.question2Column,
    label: options.labelColumn,
    score: options.scoreColumn,
    negatives: options.negativeColumn ?? [],
  };
}

function warnOfShared(
  training: ExampleDataset,
  evaluation: ExampleDataset,
  tell: (event: TrainEvent) => void,
): void {
  const shared = countShared(training, evaluation);
  if (shared === 0) return;
  const verb = shared === 1 ? "is" : "are";
  const message =
    `${shared} of the ${evaluation.count} pairs of ${evaluation.path} ${verb} in ${training.path} too, ` +
    `which flatters its ${PRIMARY_METRIC[evaluation.kind]}`;
  tell({ event: "warning", message });
}
