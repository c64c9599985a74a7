import { mkdirSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { openModelFolder } from "../../../lib/model/folder.js";
import { readSequenceLength } from "../../../lib/model/sequence-length.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
const POSITIONS = 512;
let folders = 0;

interface Files {
  sentence?: object;
  tokenizer?: object;
  modules?: object[];
}

function folder({ sentence, tokenizer, modules }: Files): string {
  const made = temporary.path(String(folders++));
  mkdirSync(made);
  for (const [name, content] of Object.entries({
    sentence_bert_config: sentence,
    tokenizer_config: tokenizer,
    modules,
  })) {
    if (content !== undefined) writeFileSync(`${made}/${name}.json`, JSON.stringify(content));
  }
  return made;
}

const lengthOf = (files: Files): Promise<number | undefined> => {
  const made = folder(files);
  return readSequenceLength(made, made, POSITIONS);
};

describe("the length of a sentence-transformers folder", () => {
  const modules = [{ type: "Transformer", path: "" }];
  // What max_seq_length of SentenceTransformer is for the same files of all-MiniLM-L6-v2, in version 6.2.
  it.each<[Files, number]>([
    [
      {
        sentence: { max_seq_length: 256, do_lower_case: false },
        tokenizer: { model_max_length: 512 },
        modules,
      },
      256,
    ],
    [{ sentence: { max_seq_length: 256 } }, 256],
    [
      { sentence: { transformer_task: "feature-extraction" }, tokenizer: { model_max_length: 100 }, modules },
      100,
    ],
    [{ sentence: { max_seq_length: null }, tokenizer: { model_max_length: 512 }, modules }, 512],
    [{ tokenizer: { model_max_length: 1e30 }, modules }, POSITIONS],
    [{ tokenizer: {}, modules }, POSITIONS],
    [{ modules }, POSITIONS],
  ])("is that of sentence-transformers: %j", async (files, expected) => {
    expect(await lengthOf(files)).toBe(expected);
  });

  it("is never more than there are positions, where sentence-transformers fails in the text that is longer", async () => {
    expect(await lengthOf({ sentence: { max_seq_length: 2000 } })).toBe(POSITIONS);
  });

  it("is none of a folder of transformers alone", async () => {
    expect(await lengthOf({ tokenizer: { model_max_length: 512 } })).toBeUndefined();
    expect(await lengthOf({})).toBeUndefined();
  });

  it.each(["64", 0, 2.5, -1, true])("that is %j is refused with its file", async (value) => {
    await expect(lengthOf({ sentence: { max_seq_length: value } })).rejects.toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringMatching(
        /sentence_bert_config\.json: expected max_seq_length to be a whole number/,
      ),
    });
    await expect(lengthOf({ tokenizer: { model_max_length: value }, modules })).rejects.toThrow(
      /tokenizer_config\.json: expected model_max_length to be/,
    );
  });

  it("stands beside the transformer, where that has a folder of its own", async () => {
    const root = temporary.path("nested");
    const inner = writeTinyModel(`${root}/0_Transformer`);
    writeFileSync(`${root}/modules.json`, JSON.stringify([{ type: "x.Transformer", path: "0_Transformer" }]));
    writeFileSync(`${inner}/sentence_bert_config.json`, JSON.stringify({ max_seq_length: 20 }));
    expect((await openModelFolder(root)).sequenceLength).toBe(20);
  });
});
