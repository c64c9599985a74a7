import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { formatAdapterConfig } from "../../../lib/adapter/config.js";
import { openAdapterFolder, stageAdapter } from "../../../lib/adapter/folder.js";
import { DEFAULT_LORA } from "../../../lib/adapter/lora-config.js";
import {
  type AdapterRecord,
  formatRecord,
  readRecord,
  requireSameBase,
} from "../../../lib/adapter/record.js";
import { resolveTargets } from "../../../lib/adapter/targets.js";
import { fingerprint } from "../../../lib/model/fingerprint.js";
import { type ModelFolder, openModelFolder } from "../../../lib/model/folder.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
const golden = (name: string) =>
  fileURLToPath(new URL(`../../fixtures/golden/adapters/${name}`, import.meta.url));
let model: ModelFolder;
let other: ModelFolder;
let record: AdapterRecord;
let count = 0;

beforeAll(async () => {
  model = await openModelFolder(writeTinyModel(temporary.path("base")));
  other = await openModelFolder(writeTinyModel(temporary.path("other"), { seed: 2 }));
  record = {
    version: "0.1.0",
    baseModel: model.name,
    base: await fingerprint(model),
    question1Prefix: "query: ",
    question2Prefix: "passage: ",
    pooling: "mean",
    normalize: true,
    maxLength: 70,
    threshold: 0.75,
    seed: 42,
    step: 10,
    epoch: 1,
    training: { learning_rate: 5e-4 },
  };
});

async function stage(): Promise<string> {
  const folder = temporary.path(`adapter-${count++}`);
  mkdirSync(folder);
  const spec = resolveTargets(DEFAULT_LORA, model);
  await stageAdapter(folder, {
    saveWeights: async (file) => cpSync(join(golden("qkv"), "adapter_model.safetensors"), file),
    config: formatAdapterConfig(DEFAULT_LORA, spec, model.name),
    record,
    model,
  });
  return folder;
}

describe("an adapter folder of ours", () => {
  it("holds PEFT's files, the tokenizer and peft_train.json, and nothing else", async () => {
    const folder = await stage();
    expect(readdirSync(folder).sort()).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "peft_train.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const copied = readFileSync(join(folder, "tokenizer.json"));
    expect(copied.equals(readFileSync(join(model.path, "tokenizer.json")))).toBe(true);
  });

  it("opens on its base, with what peft_train.json says", async () => {
    const adapter = await openAdapterFolder(await stage(), model);
    expect(adapter.spec).toEqual(resolveTargets(DEFAULT_LORA, model));
    expect(adapter.record).toEqual({ ...record, training: {} });
    expect(adapter.warnings).toEqual([]);
  });

  it("opens on what its base was quantised to, and the other way round", async () => {
    const { base } = record;
    const quantised = { ...base, weights: "1".repeat(64), source: base.weights };
    const elsewhere = { ...base, weights: "2".repeat(64), source: base.weights };
    for (const [trained, found] of [
      [base, quantised],
      [quantised, base],
      [quantised, elsewhere],
    ] as const) {
      expect(() => requireSameBase({ ...record, base: trained }, found, "a", "m")).not.toThrow();
    }
    const stranger = { ...quantised, source: "3".repeat(64) };
    for (const trained of [base, quantised, { ...base, weights: "4".repeat(64), source: undefined }]) {
      expect(() =>
        requireSameBase({ ...record, base: trained }, { ...stranger, weights: "5" }, "a", "m"),
      ).toThrow(expect.objectContaining({ code: "ADAPTER_MISMATCH" }));
    }
  });

  it("does not open on another base: both hashes are named", async () => {
    const [ours, theirs] = [(await fingerprint(model)).weights, (await fingerprint(other)).weights];
    await expect(openAdapterFolder(await stage(), other)).rejects.toMatchObject({
      code: "ADAPTER_MISMATCH",
      message: expect.stringMatching(new RegExp(`weights have SHA-256 ${ours}.*${theirs}`)),
    });
  });

  it("does not open with another tokenizer", async () => {
    const changed = writeTinyModel(temporary.path("retokenised"));
    const file = join(changed, "tokenizer.json");
    writeFileSync(file, `${readFileSync(file, "utf8")}\n`);
    await expect(openAdapterFolder(await stage(), await openModelFolder(changed))).rejects.toMatchObject({
      code: "ADAPTER_MISMATCH",
      message: expect.stringContaining("whose tokenizer"),
    });
  });
});

describe("a base whose settings were edited", () => {
  /** The model that the adapter was trained on, with other settings in one of its files. */
  async function edited(file: string, changes: Record<string, unknown>): Promise<ModelFolder> {
    const folder = writeTinyModel(temporary.path(`edited-${count++}`));
    const json = JSON.parse(readFileSync(join(folder, file), "utf8"));
    writeFileSync(join(folder, file), JSON.stringify({ ...json, ...changes }));
    return openModelFolder(folder);
  }

  for (const [file, changes, differences] of [
    [
      "tokenizer_config.json",
      { do_lower_case: false, strip_accents: true },
      ["do_lower_case true, found false"],
    ],
    [
      "tokenizer_config.json",
      { do_lower_case: true, strip_accents: false },
      ["strip_accents true, found false"],
    ],
    [
      "tokenizer_config.json",
      { tokenize_chinese_chars: false },
      ["tokenize_chinese_chars true, found false"],
    ],
    [
      "config.json",
      { num_attention_heads: 4, layer_norm_eps: 1e-5 },
      ["num_attention_heads 2, found 4", "layer_norm_eps 1e-12, found 0.00001"],
    ],
  ] as const) {
    it(`is refused, with what differs: ${Object.keys(changes).join(", ")}`, async () => {
      const folder = await stage();
      const refusal = openAdapterFolder(folder, await edited(file, changes));
      await expect(refusal).rejects.toMatchObject({
        code: "ADAPTER_MISMATCH",
        message: expect.stringContaining(`another ${file}`),
      });
      for (const text of differences) {
        await expect(refusal).rejects.toThrow(`expected ${text}`);
      }
    });
  }

  it("is taken when nothing comes of the edit, or only training would notice", async () => {
    const same = [
      await edited("tokenizer_config.json", { strip_accents: true, model_max_length: 99 }),
      await edited("config.json", { hidden_dropout_prob: 0.3, attention_probs_dropout_prob: 0, extra: 1 }),
    ];
    for (const base of same) {
      expect((await openAdapterFolder(await stage(), base)).record).toBeDefined();
    }
  });

  it("is taken by an adapter of an earlier version, which did not write settings down", async () => {
    const folder = await stage();
    const file = join(folder, "peft_train.json");
    const { base_config, tokenizer_config, ...earlier } = JSON.parse(readFileSync(file, "utf8"));
    expect(base_config).toMatchObject({ num_attention_heads: 2, layer_norm_eps: 1e-12 });
    expect(base_config).not.toHaveProperty("hidden_dropout_prob");
    expect(tokenizer_config).toEqual({
      do_lower_case: true,
      strip_accents: true,
      tokenize_chinese_chars: true,
    });
    writeFileSync(file, JSON.stringify(earlier));
    const { record: found } = await openAdapterFolder(
      folder,
      await edited("config.json", { layer_norm_eps: 1e-5 }),
    );
    expect(found?.base.config).toBeUndefined();
  });
});

describe("an adapter folder of PEFT", () => {
  it("opens without peft_train.json, in both layouts of keys", async () => {
    for (const name of ["qkv", "qkv-wrapped"]) {
      const adapter = await openAdapterFolder(golden(name), model);
      expect(adapter.record).toBeUndefined();
      expect(adapter.spec.modules).toHaveLength(6);
    }
  });

  it("whose targets are not in the model is a mismatch", async () => {
    const folder = await stage();
    const file = join(folder, "adapter_config.json");
    writeFileSync(file, JSON.stringify({ peft_type: "LORA", target_modules: ["q_proj"] }));
    await expect(openAdapterFolder(folder, model)).rejects.toMatchObject({ code: "ADAPTER_MISMATCH" });
  });

  it("with a key from the future opens with a warning that names it", async () => {
    const folder = await stage();
    const file = join(folder, "adapter_config.json");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), from_the_future: true }));
    const { warnings } = await openAdapterFolder(folder, model);
    expect(warnings).toEqual([expect.stringContaining("from_the_future")]);
  });
});

describe("an adapter folder that is none", () => {
  it("is refused: no folder, a file, no config, no weights, pickled weights", async () => {
    await expect(openAdapterFolder(temporary.path("nowhere"), model)).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
    });
    await expect(openAdapterFolder(model.weightsPath, model)).rejects.toMatchObject({
      code: "FILE_UNREADABLE",
    });
    await expect(openAdapterFolder(model.path, model)).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
    const folder = await stage();
    renameSync(join(folder, "adapter_model.safetensors"), join(folder, "adapter_model.bin"));
    await expect(openAdapterFolder(folder, model)).rejects.toMatchObject({ code: "ADAPTER_UNSUPPORTED" });
    rmSync(join(folder, "adapter_model.bin"));
    await expect(openAdapterFolder(folder, model)).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
  });

  it("is refused when its weights are cut short", async () => {
    const folder = await stage();
    const file = join(folder, "adapter_model.safetensors");
    writeFileSync(file, readFileSync(file).subarray(0, -1));
    await expect(openAdapterFolder(folder, model)).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
  });
});

describe("peft_train.json", () => {
  it("is the same bytes for the same record and reads back", async () => {
    const file = temporary.path("record.json");
    writeFileSync(file, formatRecord(record));
    expect(await readRecord(file)).toEqual({ ...record, training: {} });
    expect(formatRecord(record)).toBe(formatRecord({ ...record }));
    expect(await readRecord(temporary.path("none.json"))).toBeUndefined();
  });

  for (const [key, value] of [
    ["pooling", "max"],
    ["max_length", -1],
    ["threshold", "0.5"],
    ["base_weights_sha256", undefined],
    ["question1_prefix", 3],
    ["normalize", 1],
    ["base_config", [2]],
    ["tokenizer_config", { do_lower_case: "yes" }],
  ] as const) {
    it(`with ${key} ${JSON.stringify(value)} is refused by name`, async () => {
      const file = temporary.path("bad.json");
      writeFileSync(file, JSON.stringify({ ...JSON.parse(formatRecord(record)), [key]: value }));
      await expect(readRecord(file)).rejects.toMatchObject({
        code: "MODEL_CORRUPT",
        message: expect.stringContaining(key),
      });
    });
  }

  it("of a newer format is refused", async () => {
    const file = temporary.path("newer.json");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(formatRecord(record)), format: 2 }));
    await expect(readRecord(file)).rejects.toMatchObject({ code: "ADAPTER_UNSUPPORTED" });
  });
});
