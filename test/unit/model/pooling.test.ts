import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { parsePooling, readSentenceModules } from "../../../lib/model/pooling.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();
let count = 0;

function folderWith(files: Record<string, unknown>): string {
  const folder = temporary.path(`m${count++}`);
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), JSON.stringify(content));
  }
  return folder;
}

const legacy = (name: string) => `sentence_transformers.models.${name}`;
const modules = (...types: string[]) =>
  types.map((type, idx) => ({ idx, name: `${idx}`, path: idx === 0 ? "" : `${idx}_M`, type }));

describe("a pooling config", () => {
  for (const [config, expected] of [
    [{ pooling_mode_cls_token: false, pooling_mode_mean_tokens: true }, "mean"],
    [{ pooling_mode_cls_token: true, pooling_mode_mean_tokens: false, include_prompt: true }, "cls"],
    [{ pooling_mode: "mean", embedding_dimension: 384 }, "mean"],
    [{ pooling_mode: ["cls"] }, "cls"],
    [{ word_embedding_dimension: 384 }, "mean"],
  ] as const) {
    it(`${JSON.stringify(config)} is ${expected}`, () => {
      expect(parsePooling(config, "config.json")).toBe(expected);
    });
  }

  for (const [config, named] of [
    [{ pooling_mode_max_tokens: true }, "max"],
    [{ pooling_mode_lasttoken: true }, "lasttoken"],
    [{ pooling_mode_cls_token: true, pooling_mode_mean_tokens: true }, "cls + mean"],
    [{ pooling_mode: "weightedmean" }, "weightedmean"],
    [{ pooling_mode: ["mean", "max"] }, "mean + max"],
    [{ pooling_mode: "mean", include_prompt: false }, "include_prompt"],
  ] as const) {
    it(`${JSON.stringify(config)} is refused by name`, () => {
      expect(() => parsePooling(config, "config.json")).toThrow(
        expect.objectContaining({ code: "MODEL_UNSUPPORTED", message: expect.stringContaining(named) }),
      );
    });
  }
});

describe("modules.json", () => {
  it("absent means mean pooling, unless there is a pooling config", async () => {
    expect(await readSentenceModules(folderWith({}))).toEqual({
      transformerPath: "",
      pooling: "mean",
      normalize: false,
    });
    const cls = folderWith({ "1_Pooling/config.json": { pooling_mode_cls_token: true } });
    expect((await readSentenceModules(cls)).pooling).toBe("cls");
  });

  for (const [title, types] of [
    ["of sentence-transformers 2 to 5", ["Transformer", "Pooling", "Normalize"].map(legacy)],
    [
      "of sentence-transformers 6",
      [
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
      ],
    ],
  ] as const) {
    it(`${title} is read`, async () => {
      const folder = folderWith({
        "modules.json": modules(...types),
        "1_M/config.json": { pooling_mode: "cls" },
      });
      expect(await readSentenceModules(folder)).toEqual({
        transformerPath: "",
        pooling: "cls",
        normalize: true,
      });
    });
  }

  it("with a module that the engine has not is refused by name", async () => {
    const folder = folderWith({
      "modules.json": modules(...["Transformer", "Pooling", "Dense"].map(legacy)),
      "1_M/config.json": {},
    });
    await expect(readSentenceModules(folder)).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringContaining("models.Dense"),
    });
  });

  it("that leads out of the folder, or nowhere, is refused", async () => {
    for (const path of ["../other", "/etc", "a/../../b"]) {
      const folder = folderWith({ "modules.json": [{ type: legacy("Transformer"), path }] });
      await expect(readSentenceModules(folder), path).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
    }
    const missing = folderWith({ "modules.json": modules(legacy("Transformer"), legacy("Pooling")) });
    await expect(readSentenceModules(missing)).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
    const noList = folderWith({ "modules.json": {} });
    await expect(readSentenceModules(noList)).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
  });
});
