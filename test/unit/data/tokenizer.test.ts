import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Tokenizer } from "../../../lib/data/tokenizer.js";
import type { TokenBatch } from "../../../lib/native/types.js";

const FOLDER = path.join(import.meta.dirname, "../../fixtures/tokenizer");

interface Golden {
  texts: string[];
  full: number[][];
  at8: number[][];
  overruled: { options: object; ids: number[][] }[];
  sweep: [number, number, string][];
}

/** The part of tokenizer.json that tests change. */
interface TokenizerJson {
  added_tokens: object[];
  model: { type: string; vocab: Record<string, number> };
  post_processor: { single: object[] } | null;
}

interface Library {
  encode(text: string, pair: null, options: object): Promise<{ getIds(): number[] }>;
}

let golden: Golden;
let tokenizer: Tokenizer;
let scratch: string;

beforeAll(async () => {
  golden = JSON.parse(await readFile(path.join(FOLDER, "golden.json"), "utf8"));
  tokenizer = await Tokenizer.load(FOLDER);
  scratch = await mkdtemp(path.join(os.tmpdir(), "peft-train-tokenizer-"));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

function rows(batch: TokenBatch): number[][] {
  const count = batch.cuSeqlens.length - 1;
  return Array.from({ length: count }, (_, i) => [
    ...batch.ids.subarray(batch.cuSeqlens[i], batch.cuSeqlens[i + 1]),
  ]);
}

/** A copy of the fixture folder whose tokenizer.json or tokenizer_config.json has been changed. */
async function variant(change: {
  tokenizer?: (json: TokenizerJson) => void;
  config?: object | null;
}): Promise<string> {
  const folder = await mkdtemp(path.join(scratch, "variant-"));
  const json = JSON.parse(await readFile(path.join(FOLDER, "tokenizer.json"), "utf8"));
  change.tokenizer?.(json);
  await writeFile(path.join(folder, "tokenizer.json"), JSON.stringify(json));
  if (change.config !== null) {
    const config = JSON.parse(await readFile(path.join(FOLDER, "tokenizer_config.json"), "utf8"));
    await writeFile(
      path.join(folder, "tokenizer_config.json"),
      JSON.stringify({ ...config, ...change.config }),
    );
  }
  return folder;
}

describe("ids equal Python's", () => {
  test("of awkward texts, whole and cut to 8 tokens", async () => {
    expect(rows(await tokenizer.encode(golden.texts, 100_000))).toEqual(golden.full);
    expect(rows(await tokenizer.encode(golden.texts, 8))).toEqual(golden.at8);
  });

  test("one text at a time, in another order, and from a cold start", async () => {
    for (const i of [449, 3, 12, 200, 12]) {
      const fresh = await Tokenizer.load(FOLDER);
      expect(rows(await fresh.encode([golden.texts[i] as string], 8))).toEqual([golden.at8[i]]);
    }
  });

  test("for every code point of the swept blocks", async () => {
    const json = JSON.parse(await readFile(path.join(FOLDER, "tokenizer.json"), "utf8"));
    for (const [first, last, tokens] of golden.sweep) {
      const texts = Array.from(
        { length: last - first + 1 },
        (_, i) => `a${String.fromCodePoint(first + i)}b`,
      );
      const ids = tokens === "" ? [] : tokens.split(" ").map((token) => json.model.vocab[token]);
      for (const row of rows(await tokenizer.encode(texts, 64))) expect(row.slice(1, -1)).toEqual(ids);
    }
  });

  test("with the normaliser options of tokenizer_config.json, as transformers applies them", async () => {
    for (const { options, ids } of golden.overruled) {
      const other = await Tokenizer.load(await variant({ config: options }));
      expect(rows(await other.encode(golden.texts.slice(0, ids.length), 100_000))).toEqual(ids);
      // A generic class takes tokenizer.json as it is.
      const generic = { ...options, tokenizer_class: "PreTrainedTokenizerFast" };
      const plain = await Tokenizer.load(await variant({ config: generic }));
      expect(rows(await plain.encode(golden.texts, 100_000))).toEqual(golden.full);
    }
  });

  test("where pieces cannot be told apart, so that whole texts go to the library", async () => {
    const folder = await variant({
      tokenizer: (json) => {
        json.added_tokens.push({ ...json.added_tokens[0], id: 205, content: "the best", special: false });
      },
    });
    const other = await Tokenizer.load(folder);
    expect(other.segments).toBeUndefined();
    expect(other.vocabSize).toBe(206);
    const [row] = rows(await other.encode(["query: the best book"], 6));
    expect(row).toHaveLength(6);
    expect(row?.[3]).toBe(205);
    const without = golden.texts.flatMap((text, i) => (text.includes("the best") ? [] : [i]));
    const encoded = rows(
      await other.encode(
        without.map((i) => golden.texts[i] as string),
        8,
      ),
    );
    expect(encoded).toEqual(without.map((i) => golden.at8[i]));
  });
});

describe("lengths", () => {
  test("maxLength counts [CLS] and [SEP]", async () => {
    const batch = await tokenizer.encode(["the best book to read", "", "a"], 4);
    expect([...batch.cuSeqlens]).toEqual([0, 4, 6, 9]);
    const [first] = rows(batch);
    expect(first?.[0]).toBe(tokenizer.clsId);
    expect(first?.at(-1)).toBe(tokenizer.sepId);
    expect(rows(await tokenizer.encode(["the best"], 2))).toEqual([[tokenizer.clsId, tokenizer.sepId]]);
  });

  test.each([1, 0, -3, 2.5, Number.NaN])("a maxLength of %s is refused", async (maxLength) => {
    await expect(tokenizer.encode(["a"], maxLength)).rejects.toMatchObject({ code: "USAGE" });
  });

  test("no texts give an empty batch", async () => {
    const batch = await tokenizer.encode([], 8);
    expect([...batch.cuSeqlens]).toEqual([0]);
    expect(batch.ids).toHaveLength(0);
  });

  test("more texts than one round of the library takes", async () => {
    const texts = Array.from({ length: 3000 }, (_, i) => golden.texts[i % golden.texts.length] as string);
    const encoded = rows(await tokenizer.encode(texts, 8));
    expect(encoded).toEqual(texts.map((_, i) => golden.at8[i % golden.texts.length]));
  });
});

describe("very long texts", () => {
  const MIB = 1024 * 1024;
  /** Kinds of text that a shortcut could get wrong, each repeated up to the length asked for. */
  const KINDS: Record<string, string> = {
    words: "the best book ",
    letters: "a",
    spaces: " ",
    "no-break spaces": "\u00a0",
    NUL: "\0",
    punctuation: "!",
    "quotation marks": "“",
    accents: "e\u0301",
    "stacked accents": "\u0301\u0302",
    ideographs: "中文",
    emoji: "😀😃",
    "joined emoji": "👩\u200d👧",
    controls: "\x01\x02",
    symbols: "≠∞",
    "special tokens": "[SEP]",
    "cut special tokens": "[SE\x01P]",
    "lone surrogates": "\ud800",
    thai: "ก็ได้ครับ",
    sigma: "ΟΔΟΣ",
  };

  test.each(Object.keys(KINDS))("%s: ids equal the library's, which read the whole text", async (kind) => {
    const unit = KINDS[kind] as string;
    const { library } = tokenizer as unknown as { library: Library };
    for (const [length, tail] of [
      [4_000, ""],
      [9_001, " the end"],
      [20_000, "[SEP]x"],
    ] as const) {
      const text = `query: ${unit.repeat(Math.ceil(length / unit.length))}${tail}`;
      const whole = (await library.encode(text, null, { addSpecialTokens: false })).getIds();
      for (const maxLength of [5, 70, 512]) {
        const [row] = rows(await tokenizer.encode([text], maxLength));
        expect(row?.slice(1, -1)).toEqual(whole.slice(0, maxLength - 2));
      }
    }
  });

  test("random mixtures: ids equal the library's", async () => {
    const { library } = tokenizer as unknown as { library: Library };
    const pools = [
      "abXY01",
      "éà\u0301\u0302",
      "中𠀀",
      ".,![",
      "😀👍🏽\u200d",
      "\x01\u200b",
      "กข\u0e31",
      "Σςß",
      "[SEP]",
      "\u3000",
    ];
    let state = 1;
    const below = (n: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % n;
    };
    for (let round = 0; round < 60; round++) {
      const chosen = Array.from({ length: 1 + below(4) }, () => [...(pools[below(pools.length)] as string)]);
      let pool = chosen[0] as string[];
      let text = "";
      while (text.length < 5000 + below(4000)) {
        if (below(1 + 200 * (round % 3)) === 0) pool = chosen[below(chosen.length)] as string[];
        const char = pool[below(pool.length)] as string;
        text += below(40) === 0 ? char.repeat(1 + below(400)) : char;
      }
      const whole = (await library.encode(text, null, { addSpecialTokens: false })).getIds();
      const [row] = rows(await tokenizer.encode([text], 70));
      expect(row?.slice(1, -1), JSON.stringify(text.slice(0, 200))).toEqual(whole.slice(0, 68));
    }
  });

  // The library alone takes ten seconds and 1.2 GB for one such text.
  test.each(Object.keys(KINDS))(
    "10 MB of %s take bounded time and memory",
    async (kind) => {
      const unit = KINDS[kind] as string;
      const text = unit.repeat(Math.floor((10 * MIB) / unit.length));
      const before = process.memoryUsage().rss;
      const start = performance.now();
      const [row] = rows(await tokenizer.encode([text], 70));
      expect(performance.now() - start).toBeLessThan(30_000);
      expect(process.memoryUsage().rss - before).toBeLessThan(300 * MIB);
      expect(row?.length).toBeLessThanOrEqual(70);
    },
    60_000,
  );

  test("a word far beyond the longest is one [UNK]", async () => {
    const unknown = rows(await tokenizer.encode(["x".repeat(101)], 8));
    expect(rows(await tokenizer.encode(["x".repeat(10 * MIB)], 8))).toEqual(unknown);
    expect(unknown[0]).toHaveLength(3);
  });
});

describe("a folder whose tokenizer is no good", () => {
  test("no such folder or file", async () => {
    const missing = path.join(scratch, "nowhere");
    await expect(Tokenizer.load(missing)).rejects.toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringContaining(path.join(missing, "tokenizer.json")),
    });
  });

  test.each([
    ["", "not valid JSON"],
    ['{"model":', "not valid JSON"],
    ["[]", "JSON object"],
    ["{}", 'no "model"'],
    ["version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"],
    ['{"model":{"type":"WordPiece"}}', "not a usable tokenizer"],
  ])("tokenizer.json holding %j", async (content, message) => {
    const folder = await mkdtemp(path.join(scratch, "corrupt-"));
    const file = path.join(folder, "tokenizer.json");
    await writeFile(file, content);
    const error = await Tokenizer.load(folder).catch((caught) => caught);
    expect(error).toMatchObject({ name: "PeftTrainError", code: "MODEL_CORRUPT" });
    expect(error.message).toContain(file);
    expect(error.message).toContain(message);
  });

  test("a truncated copy", async () => {
    const folder = await mkdtemp(path.join(scratch, "cut-"));
    const text = await readFile(path.join(FOLDER, "tokenizer.json"), "utf8");
    await writeFile(path.join(folder, "tokenizer.json"), text.slice(0, text.length / 2));
    await expect(Tokenizer.load(folder)).rejects.toMatchObject({ code: "MODEL_CORRUPT" });
  });

  test("no post-processor, so no [CLS] and [SEP]", async () => {
    const folder = await variant({ tokenizer: (json) => Object.assign(json, { post_processor: null }) });
    await expect(Tokenizer.load(folder)).rejects.toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringMatching(/\[CLS\] \.\.\. \[SEP\]; its post_processor gives no special token/),
    });
  });

  test("a post-processor that swaps them", async () => {
    const folder = await variant({ tokenizer: (json) => json.post_processor?.single.reverse() });
    await expect(Tokenizer.load(folder)).rejects.toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringContaining("[SEP] [CLS]"),
    });
  });

  test("special tokens of another name, as tokenizer_config.json says", async () => {
    const swapped = { config: { cls_token: { content: "[MASK]" } } };
    await expect(Tokenizer.load(await variant(swapped))).rejects.toMatchObject({
      message: expect.stringContaining("[MASK] ... [SEP]"),
    });
  });

  test("byte-pair encoding is not supported", async () => {
    const folder = await variant({ tokenizer: (json) => Object.assign(json.model, { type: "BPE" }) });
    await expect(Tokenizer.load(folder)).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringContaining('"BPE"'),
    });
  });

  test("truncation on the left is not supported", async () => {
    const folder = await variant({ config: { truncation_side: "left" } });
    await expect(Tokenizer.load(folder)).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED" });
  });

  test("tokenizer_config.json may be missing, but not corrupt", async () => {
    const without = await Tokenizer.load(await variant({ config: null }));
    expect(rows(await without.encode(golden.texts, 8))).toEqual(golden.at8);
    const folder = await mkdtemp(path.join(scratch, "config-"));
    await cp(path.join(FOLDER, "tokenizer.json"), path.join(folder, "tokenizer.json"));
    await writeFile(path.join(folder, "tokenizer_config.json"), "{");
    await expect(Tokenizer.load(folder)).rejects.toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringContaining("tokenizer_config.json"),
    });
  });
});
