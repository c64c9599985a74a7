import { mkdirSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { readPrompts } from "../../../lib/model/prompts.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const temporary = temporaryFolder();

it("the default prompt of a model is what texts get, and that of documents goes before the second of a pair", async () => {
  const both = (first: string, second = first) => ({ question1Prefix: first, question2Prefix: second });
  const cases: [config: object | undefined, expected: object | undefined][] = [
    [undefined, undefined],
    [{}, undefined],
    [{ prompts: { query: "q: " }, default_prompt_name: null }, undefined],
    [{ prompts: { find: "f: ", document: "d: " }, default_prompt_name: "find" }, both("f: ")],
    [{ prompts: { query: "q: " }, default_prompt_name: "query" }, both("q: ")],
    [{ prompts: { query: "q: ", document: "d: " }, default_prompt_name: "query" }, both("q: ", "d: ")],
  ];
  for (const [i, [config, expected]] of cases.entries()) {
    const folder = temporary.path(`model-${i}`);
    mkdirSync(folder);
    if (config !== undefined)
      writeFileSync(`${folder}/config_sentence_transformers.json`, JSON.stringify(config));
    expect(await readPrompts(folder)).toEqual(expected);
  }
});

it("a default that is none of the prompts is refused by name", async () => {
  mkdirSync(temporary.path("wrong"));
  const config = { prompts: { a: "1", b: "2" }, default_prompt_name: "toString" };
  writeFileSync(temporary.path("wrong", "config_sentence_transformers.json"), JSON.stringify(config));
  await expect(readPrompts(temporary.path("wrong"))).rejects.toMatchObject({
    code: "MODEL_CORRUPT",
    message: expect.stringMatching(/default_prompt_name is "toString", and prompts has a, b$/),
  });
});
