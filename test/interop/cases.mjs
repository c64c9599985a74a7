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

/**
 * What is trained on either side: flags of ours, and PEFT's options of the same meaning; `trained` where those of what is
 * trained are others than those of what is saved, `recent` where the oldest PEFT has no such options.
 */
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
    {
      name: "demo-dora",
      model: models.demo,
      flags: { use_dora: true, lora_r: 4, lora_alpha: 8, lora_target_modules: "all-linear" },
      options: { ...linear, use_dora: true },
    },
    {
      name: "demo-pissa",
      model: models.demo,
      flags: { init_lora_weights: "pissa", lora_dropout: 0.1 },
      options: { ...qkv, r: 16, lora_alpha: 32, lora_dropout: 0.1 },
      trained: qkv,
    },
    {
      name: "demo-lora-bias",
      model: models.demo,
      flags: {
        lora_bias: true,
        lora_target_modules: "value,dense",
        exclude_modules: "pooler.dense",
        lora_rank_pattern: '{"value":4}',
        layers_to_transform: "0,1",
      },
      options: {
        ...qkv,
        target_modules: ["value", "dense"],
        lora_bias: true,
        exclude_modules: ["pooler.dense"],
        rank_pattern: { value: 4 },
        layers_to_transform: [0, 1],
      },
      recent: true,
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
    {
      name: "demo-dora",
      model: models.demo,
      options: { ...linear, use_dora: true, use_rslora: true, lora_dropout: 0.1 },
    },
    {
      name: "demo-lora-bias",
      model: models.demo,
      options: { ...qkv, target_modules: ["value", "dense"], lora_bias: true },
    },
    { name: "demo-pissa", model: models.demo, options: { ...qkv, init_lora_weights: "pissa" } },
    {
      name: "demo-olora",
      model: models.demo,
      options: { ...qkv, init_lora_weights: "olora", rank_pattern: { key: 4 } },
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
