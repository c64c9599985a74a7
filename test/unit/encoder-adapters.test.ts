import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { Encoder } from "../../lib/encoder.js";
import { train } from "../../lib/train/train.js";
import { FakeEngine } from "../support/fake-engine.js";
import { writePairs } from "../support/pairs-file.js";
import { temporaryFolder } from "../support/temporary-folder.js";
import { writeTinyModel } from "../support/tiny-model.js";

const temporary = temporaryFolder();
let model: string;
let pairs: string;
const folders = new Map<string, string>();

/** An adapter folder of its own: the fake engine's weights are the number of steps. */
async function trained(name: string, options: object): Promise<string> {
  const outputDir = temporary.path(name);
  const given = { modelNameOrPath: model, datasetName: pairs, outputDir, report: false, ...options };
  await train(given, { engine: () => new FakeEngine() }).result;
  return outputDir;
}

beforeAll(async () => {
  model = writeTinyModel(temporary.path("model"));
  pairs = writePairs(temporary.path("pairs.csv"), 60);
  folders.set("support", await trained("support", { prefix: "a ", maxLength: 12, maxTrainSteps: 1 }));
  folders.set("sales", await trained("sales", { prefix: "b c ", maxLength: 6, maxTrainSteps: 2 }));
});

const folder = (name: string) => folders.get(name) as string;
const turning = () => Object.assign(new FakeEngine(), { adaptersTurn: true });
const load = (engine: FakeEngine, adapter?: string) => Encoder.load(model, { engine: () => engine, adapter });

async function withBoth(): Promise<{ encoder: Encoder; engine: FakeEngine }> {
  const engine = turning();
  const encoder = await load(engine);
  for (const name of folders.keys()) expect(await encoder.addAdapter(name, folder(name))).toEqual([]);
  return { encoder, engine };
}

describe("an encoder with several adapters", () => {
  it("lists them with what their texts get", async () => {
    const { encoder } = await withBoth();
    expect(encoder.adapters).toEqual([
      { name: "support", path: folder("support"), prefix: "a ", maxLength: 12, merged: false },
      { name: "sales", path: folder("sales"), prefix: "b c ", maxLength: 6, merged: false },
    ]);
    expect(encoder.adapter).toBeUndefined();
    await encoder.removeAdapter("support");
    expect(encoder.adapters.map(({ name }) => name)).toEqual(["sales"]);
  });

  it("encodes each text with its adapter, prefix and length, as if it were alone", async () => {
    const { encoder, engine } = await withBoth();
    const texts = ["d e f g h", "d", "e f", "g h i j k l m n o p q r s"];
    const adapters = ["support", false, "sales", "sales"] as const;
    const together = await encoder.encode(texts, { adapters });
    for (const [i, adapter] of adapters.entries()) {
      const [alone] = await encoder.encode([texts[i] as string], { adapter });
      expect(together[i], texts[i]).toEqual(alone);
    }
    // [CLS] and [SEP] with prefix and words; the last is cut.
    const lengths = engine.encoded.slice(-4).map(({ batch }) => batch.ids.length);
    expect(lengths).toEqual([8, 3, 6, 6]);
    const overridden = await encoder.encode(texts, { adapters, prefix: "", maxLength: 20 });
    // Of one length at most, they are one batch.
    expect(engine.encoded.at(-1)).toMatchObject({ adapters: ["support#1", "sales#2"] });
    const [plain] = await encoder.encode([texts[3] as string], {
      adapter: "sales",
      prefix: "",
      maxLength: 20,
    });
    expect(overridden[3]).toEqual(plain);
  });

  it("compares pairs with the adapter of each", async () => {
    const { encoder } = await withBoth();
    const cosines = await encoder.similarity(["d", "d"], ["e", "e"], { adapters: ["support", false] });
    expect(cosines[0]).toBe((await encoder.similarity(["d"], ["e"], { adapter: "support" }))[0]);
    expect(cosines[1]).toBe((await encoder.similarity(["d"], ["e"], { adapter: false }))[0]);
    expect(cosines[0]).not.toBe(cosines[1]);
  });

  it("measures a file with one of them", async () => {
    const { encoder, engine } = await withBoth();
    await encoder.evaluate(pairs, { adapter: "sales" });
    expect(engine.encoded.at(-1)?.adapter).toBe("sales#2");
    await encoder.evaluate(pairs);
    expect(engine.encoded.at(-1)?.adapter).toBe(false);
  });

  it("replaces one between two calls, and keeps the old one where the new one does not load", async () => {
    const { encoder } = await withBoth();
    const encode = () => encoder.encode(["d"], { adapter: "support", prefix: "", maxLength: 12 });
    const [old] = await encode();
    const broken = temporary.path("broken");
    cpSync(folder("sales"), broken, { recursive: true });
    rmSync(`${broken}/adapter_model.safetensors`);
    await expect(encoder.addAdapter("support", broken)).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
    expect((await encode())[0]).toEqual(old);
    const [during, , after] = await Promise.all([
      encode(),
      encoder.addAdapter("support", folder("sales")),
      encoder.addAdapter("third", folder("support")).then(encode),
    ]);
    expect(during[0]).toEqual(old);
    expect(after[0]).toEqual((await encoder.encode(["d"], { adapter: "sales", prefix: "" }))[0]);
    expect(encoder.adapters[0]).toMatchObject({ name: "support", path: folder("sales"), maxLength: 6 });
  });

  it("takes the adapter that came with the model unless a call says otherwise", async () => {
    const encoder = await load(turning(), folder("support"));
    expect(encoder.adapters).toMatchObject([{ name: "default" }]);
    expect(encoder.adapter?.path).toBe(folder("support"));
    await encoder.addAdapter("sales", folder("sales"));
    expect(await encoder.encode(["d"])).toEqual(await encoder.encode(["d"], { adapter: "default" }));
    expect(await encoder.encode(["d"])).not.toEqual(await encoder.encode(["d"], { adapter: "sales" }));
    await encoder.removeAdapter("default");
    expect(encoder.adapter).toBeUndefined();
    expect(await encoder.encode(["d"])).toEqual(await encoder.encode(["d"], { adapter: false }));
  });

  it("names what it does not know, and the nearest that it does", async () => {
    const { encoder } = await withBoth();
    const unknown = {
      code: "USAGE",
      message: 'no adapter "suport" is loaded; there are "support", "sales"',
      hint: 'Did you mean "support"?',
    };
    await expect(encoder.encode(["d"], { adapter: "suport" })).rejects.toMatchObject(unknown);
    await expect(encoder.encode(["d"], { adapters: ["suport"] })).rejects.toMatchObject(unknown);
    await expect(encoder.similarity(["d"], ["e"], { adapter: "suport" })).rejects.toMatchObject(unknown);
    await expect(encoder.evaluate(pairs, { adapter: "suport" })).rejects.toMatchObject(unknown);
    await expect(encoder.removeAdapter("suport")).rejects.toMatchObject(unknown);
    const none = await load(new FakeEngine());
    await expect(none.encode(["d"], { adapter: "x" })).rejects.toMatchObject({
      message: 'no adapter "x" is loaded; none is',
      hint: "Load it with encoder.addAdapter(name, folder).",
    });
    await expect(encoder.encode(["d", "e"], { adapters: ["sales"] })).rejects.toThrow(
      "adapters: expected one name or false a text, 2, found 1",
    );
    await expect(encoder.encode(["d"], { adapter: 1 as never })).rejects.toThrow("found number");
    await expect(encoder.addAdapter("", folder("sales"))).rejects.toThrow(
      'name of an adapter: expected a word, found ""',
    );
  });

  it("refuses an adapter that pools in another way than the encoder", async () => {
    const other = temporary.path("cls");
    mkdirSync(other);
    cpSync(folder("sales"), other, { recursive: true });
    const record = JSON.parse(readFileSync(`${other}/peft_train.json`, "utf8"));
    writeFileSync(`${other}/peft_train.json`, JSON.stringify({ ...record, pooling: "cls" }));
    const { encoder } = await withBoth();
    await expect(encoder.addAdapter("cls", other)).rejects.toMatchObject({
      code: "ADAPTER_MISMATCH",
      message: `${other} was trained with cls pooling; this encoder pools by mean`,
    });
  });
});
