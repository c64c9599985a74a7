import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import { CHECKPOINT, EVENTS_FOLDER } from "../../adapter/folder.js";
import { shortPath, size, table } from "./terminal.js";

const CONTENTS: Record<string, string> = {
  "adapter_config.json": "what PEFT needs to load it",
  "adapter_model.safetensors": "the LoRA weights",
  "config.json": "what transformers needs to load it",
  "config_sentence_transformers.json": "prefixes, as prompts of sentence-transformers",
  "model.safetensors": "all weights",
  "modules.json": "what sentence-transformers needs to load it",
  "peft_train.json": "prefixes, pooling, best threshold, hashes of the base model",
  "report.html": "curves, scores and mistakes: open it in a browser",
  "sentence_bert_config.json": "tokens of a text, for sentence-transformers",
  "special_tokens_map.json": "the base model's tokenizer",
  "tokenizer.json": "the base model's tokenizer",
  "tokenizer_config.json": "the base model's tokenizer",
  "train_config.json": "every option: npx peft-train --config repeats the run",
  "train_log.jsonl": "losses and metrics, one a line",
  "vocab.txt": "the base model's tokenizer",
};

/** What is in an output folder, checkpoints as one line each. */
export function outputTable(folder: string): string {
  const rows = readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => CHECKPOINT.test(name) || name === EVENTS_FOLDER || name in CONTENTS)
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }))
    .map((entry) =>
      entry.isDirectory()
        ? [
            `${entry.name}/`,
            "",
            entry.name === EVENTS_FOLDER
              ? `for tensorboard --logdir ${shortPath(folder)}`
              : "checkpoint: the weights as they stood then, and what a run needs to go on",
          ]
        : [entry.name, size(statSync(path.join(folder, entry.name)).size), CONTENTS[entry.name] as string],
    );
  return table([`In ${shortPath(folder)}`, "Size", "What"], rows, { right: [1] });
}
