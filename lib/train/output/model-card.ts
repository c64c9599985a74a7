import { stringify } from "yaml";
import { counted } from "../../format.js";
import { VERSION } from "../../version.js";
import type { TrainResult } from "../events.js";
import type { Plan } from "../preparation.js";
import { measuredAt } from "./run-saves.js";

/** What the Hub calls our metrics, with the words for people. */
const METRICS: [key: string, type: string, name: string][] = [
  ["rocAuc", "roc_auc", "ROC AUC"],
  ["averagePrecision", "average_precision", "Average precision"],
  ["accuracy", "accuracy", "Accuracy"],
  ["f1", "f1", "F1"],
  ["spearman", "spearmanr", "Spearman"],
  ["pearson", "pearsonr", "Pearson"],
  ["tripletAccuracy", "accuracy", "Triplet accuracy"],
  ["teacherCosine", "cosine_similarity", "Cosine to the teacher"],
];

/** Metrics of whatever kind of data, by name. */
type Measured = Record<string, unknown>;

/** README.md of a trained adapter or model: metadata that the Hub reads, how it was trained, what came of it, how to use it. */
export function modelCard(repository: string, plan: Plan, result: TrainResult): string {
  const { adapter, options, model } = plan;
  const isOnHub = model.hub !== undefined;
  const before: Measured = { ...result.evaluations[0]?.metrics };
  const after: Measured = { ...measuredAt(result.savedStep, result.evaluations)?.metrics };
  const measured = METRICS.filter(([key]) => typeof after[key] === "number");
  const dataset = basename(options.evalDatasetName ?? options.datasetName);
  const metadata = {
    // The Hub takes only names of its own here.
    ...(isOnHub ? { base_model: model.name } : {}),
    library_name: adapter === undefined ? "sentence-transformers" : "peft",
    pipeline_tag: "sentence-similarity",
    tags: [
      ...(adapter === undefined ? ["sentence-transformers"] : ["lora"]),
      "sentence-similarity",
      "feature-extraction",
      "peft-train",
      ...(isOnHub ? [`base_model:${adapter === undefined ? "finetune" : "adapter"}:${model.name}`] : []),
    ],
    ...(measured.length === 0
      ? {}
      : {
          metrics: measured.map(([, type]) => type),
          "model-index": [
            {
              name: repository,
              results: [
                {
                  task: { type: "sentence-similarity" },
                  dataset: { name: dataset, type: "pairs" },
                  metrics: measured.map(([key, type, name]) => ({
                    type,
                    name,
                    value: rounded(after[key]),
                  })),
                },
              ],
            },
          ],
        }),
  };
  const base = isOnHub ? `[${model.name}](https://huggingface.co/${model.name})` : `\`${model.name}\``;
  const prefixes = [...new Set([plan.question1Prefix, plan.question2Prefix])].map((text) => `\`${text}\``);
  return [
    `---\n${stringify(metadata)}---\n`,
    `# ${repository.replace(/.*\//, "")}\n`,
    `${adapter === undefined ? `All parameters of ${base}` : `A LoRA adapter for ${base}`}, trained with [peft-train](https://www.npmjs.com/package/peft-train) ${VERSION}.\n`,
    ...(measured.length === 0
      ? []
      : [
          `## Results\n\nOn \`${dataset}\`:\n`,
          "| | before | after |\n| --- | --- | --- |",
          ...measured.map(([key, , name]) => `| ${name} | ${shown(before[key])} | ${shown(after[key])} |`),
          "",
        ]),
    "## Training\n",
    "| | |\n| --- | --- |",
    `| data | \`${basename(options.datasetName)}\` |`,
    `| loss | ${plan.loss.spec.name} |`,
    `| steps | ${result.steps}, ${counted(result.epochs, "epoch")} |`,
    ...(options.loadBestModelAtEnd && result.best !== null
      ? [`| kept | step ${result.best.step}, the best by ${result.best.metric} |`]
      : []),
    `| batch | ${options.perDeviceTrainBatchSize} x ${options.gradientAccumulationSteps} |`,
    `| learning rate | ${options.learningRate}, ${options.lrSchedulerType} |`,
    ...(adapter === undefined
      ? []
      : [
          `| LoRA | r ${options.loraR}, alpha ${options.loraAlpha}, dropout ${options.loraDropout} |`,
          `| modules | ${adapter.spec.modules.length}: ${describeTargets(options.loraTargetModules)} |`,
        ]),
    `| texts | prefix ${prefixes.join(" and ")}, at most ${plan.maxLength} tokens, ${plan.pooling} pooling, length 1 |`,
    `| seed | ${options.seed} |`,
    "",
    "## Use\n",
    ...(adapter === undefined ? useOfModel(repository) : useOfAdapter(repository, model.name)),
    "",
  ].join("\n");
}

function useOfAdapter(repository: string, base: string): string[] {
  return [
    "```sh",
    `npx peft-train encode --model_name_or_path=${base} --adapter=${repository} --input=texts.txt --output=vectors.npy`,
    "```\n",
    "```python",
    "from peft import PeftModel",
    "from transformers import AutoModel\n",
    `model = PeftModel.from_pretrained(AutoModel.from_pretrained(${JSON.stringify(base)}), ${JSON.stringify(repository)})`,
    "```",
  ];
}

function useOfModel(repository: string): string[] {
  return [
    "```sh",
    `npx peft-train encode --model_name_or_path=${repository} --input=texts.txt --output=vectors.npy`,
    "```\n",
    "```python",
    "from sentence_transformers import SentenceTransformer\n",
    `model = SentenceTransformer(${JSON.stringify(repository)})`,
    "vectors = model.encode(texts)",
    "```",
  ];
}

/** The Hub shows a folder of the user's to nobody. */
function basename(file: string): string {
  return file.replace(/.*[\\/]/, "");
}

function describeTargets(targets: readonly string[] | string): string {
  return typeof targets === "string" ? `\`${targets}\`` : targets.map((name) => `\`${name}\``).join(", ");
}

function rounded(value: unknown): number {
  return Number((value as number).toFixed(6));
}

function shown(value: unknown): string {
  return typeof value === "number" ? value.toFixed(4) : "";
}
