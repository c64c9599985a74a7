import { readFileSync } from "node:fs";
import path from "node:path";
import Papa from "papaparse";

/** Texts that tokenisers are known to disagree about. */
const AWKWARD = [
  "Ärger über naïve Cafés — “quoted” – and 100 % of it…",
  "東京で一番おいしいラーメン屋はどこですか？",
  "Как выучить русский язык быстро?",
  "कैसे हैं आप?",
  "price: $1,234.56 (≈ €1.150,00) or £999?!",
  "emoji 🙂👩‍👩‍👧 in the middle",
  "tabs\tand\nnewlines \u00a0 and  many   spaces ",
  "a".repeat(120),
  "state-of-the-art o'clock don't [MASK] [SEP] [CLS] [UNK]",
  "zero\u200bwidth and soft\u00adhyphen, combining e\u0301 and \ufb01 ligature",
  "word ".repeat(150),
  "",
];

/** @returns {string[]} `count` distinct questions of a pair file, then the awkward ones. */
export function interopTexts(file, count) {
  const { data } = Papa.parse(readFileSync(file, "utf8"), { header: true, skipEmptyLines: true });
  const questions = new Set(data.flatMap(({ question1, question2 }) => [question1, question2]));
  if (questions.size < count) throw new Error(`${file} has only ${questions.size} questions`);
  return [...[...questions].slice(0, count), ...AWKWARD];
}

/** What is trained on either side: flags of ours, and PEFT's options of the same meaning. */
export function cases(models, work) {
  const qkv = { r: 8, lora_alpha: 16, target_modules: ["query", "key", "value"] };
  const linear = { r: 4, lora_alpha: 8, target_modules: "all-linear" };
  const ours = [
    { name: "minilm-qkv", model: models.minilm, flags: {}, options: qkv },
    {
      name: "minilm-all-linear",
      model: models.minilm,
      flags: { lora_r: 4, lora_alpha: 8, lora_target_modules: "all-linear" },
      options: linear,
    },
    {
      name: "demo-dropout",
      model: models.demo,
      flags: { lora_dropout: 0.1, lora_target_modules: "query,value" },
      options: { ...qkv, target_modules: ["query", "value"], lora_dropout: 0.1 },
    },
  ];
  const theirs = [
    { name: "minilm-qkv", model: models.minilm, options: qkv },
    { name: "minilm-all-linear", model: models.minilm, options: linear },
    {
      name: "demo-patterns",
      model: models.demo,
      options: {
        r: 8,
        lora_alpha: 16,
        use_rslora: true,
        target_modules: ["query", "value", "intermediate.dense"],
        rank_pattern: { query: 2 },
        alpha_pattern: { "layer.0.attention.self.value": 4 },
      },
    },
  ];
  return {
    ours: ours.map((entry) => ({
      ...entry,
      adapter: path.join(work, "ours", entry.name),
      vectors: path.join(work, "ours", `${entry.name}.npy`),
    })),
    theirs,
    gradients: "minilm-qkv",
  };
}
