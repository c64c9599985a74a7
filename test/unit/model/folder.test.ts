import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { fingerprint } from "../../../lib/model/fingerprint.js";
import { openModelFolder } from "../../../lib/model/folder.js";
import { temporaryFolder } from "../../support/temporary-folder.js";
import { TINY_CONFIG, writeTinyModel } from "../../support/tiny-model.js";

const temporary = temporaryFolder();
let count = 0;
const tinyModel = (options = {}) => writeTinyModel(temporary.path(`model-${count++}`), options);

async function refused(folder: string): Promise<{ code: string; message: string; hint: string }> {
  return openModelFolder(folder).then(
    () => expect.fail("it was accepted"),
    (error) => error,
  );
}

describe("a model folder", () => {
  it("opens", async () => {
    const folder = tinyModel();
    expect(await openModelFolder(folder)).toMatchObject({
      name: folder,
      path: folder,
      weightsPath: join(folder, "model.safetensors"),
      pooling: "mean",
      hasPooler: true,
      shape: { hiddenSize: 32 },
    });
    expect((await openModelFolder(tinyModel({ pooler: false }))).hasPooler).toBe(false);
  });

  it("may keep its transformer in a folder of its own, as modules.json says", async () => {
    const root = temporary.path("nested");
    const inner = writeTinyModel(join(root, "0_Transformer"));
    writeFileSync(
      join(root, "modules.json"),
      JSON.stringify([{ type: "sentence_transformers.models.Transformer", path: "0_Transformer" }]),
    );
    expect((await openModelFolder(root)).path).toBe(inner);
  });

  it("that is not there is looked for on the Hub, where its name may be one", async () => {
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    vi.stubEnv("HF_HOME", temporary.path("hf"));
    expect(await refused("intfloat/e5-small-v2")).toMatchObject({
      code: "HUB_NOT_FOUND",
      message: expect.stringMatching(/^there is no folder intfloat\/e5-small-v2, and HF_HUB_OFFLINE is set/),
    });
    vi.unstubAllEnvs();
    expect(await refused("./no/such/folder")).toMatchObject({ code: "FILE_NOT_FOUND" });
    expect(await refused(join(tinyModel(), "config.json"))).toMatchObject({ code: "FILE_UNREADABLE" });
  });

  it("with pickled weights only is refused, and says how to convert", async () => {
    const folder = tinyModel();
    renameSync(join(folder, "model.safetensors"), join(folder, "pytorch_model.bin"));
    expect(await refused(folder)).toMatchObject({
      code: "MODEL_UNSUPPORTED",
      hint: expect.stringContaining("save_pretrained"),
    });
  });

  it("with weights in several files is refused", async () => {
    const folder = tinyModel();
    rmSync(join(folder, "model.safetensors"));
    writeFileSync(join(folder, "model.safetensors.index.json"), "{}");
    expect(await refused(folder)).toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringContaining("several files"),
    });
  });

  for (const name of ["model.safetensors", "config.json"]) {
    it(`with a Git LFS pointer for ${name} says git lfs pull`, async () => {
      const folder = tinyModel();
      writeFileSync(join(folder, name), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
      expect(await refused(folder)).toMatchObject({
        code: "MODEL_CORRUPT",
        hint: expect.stringContaining("git lfs pull"),
      });
    });
  }

  for (const name of ["model.safetensors", "config.json", "tokenizer.json"]) {
    it(`without ${name} says so`, async () => {
      const folder = tinyModel();
      rmSync(join(folder, name));
      expect(await refused(folder)).toMatchObject({
        code: "MODEL_CORRUPT",
        message: expect.stringContaining(name),
      });
    });
  }

  it("that is an adapter says so", async () => {
    const folder = temporary.path("adapter");
    mkdirSync(folder);
    writeFileSync(join(folder, "adapter_config.json"), "{}");
    expect(await refused(folder)).toMatchObject({ hint: expect.stringContaining("--adapter") });
  });

  it("with the config of another model names both sizes", async () => {
    const folder = tinyModel();
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...TINY_CONFIG, vocab_size: 204 }));
    expect(await refused(folder)).toMatchObject({
      code: "MODEL_CORRUPT",
      message: expect.stringMatching(/\[205, 32\].*\[204, 32\]/),
    });
  });

  it("with broken JSON is refused, however deep it nests", async () => {
    const folder = tinyModel();
    for (const text of ["{", "[]", "[".repeat(10_000), `${"[".repeat(10_000)}${"]".repeat(10_000)}`]) {
      writeFileSync(join(folder, "config.json"), text);
      expect(await refused(folder), text.slice(0, 10)).toMatchObject({ code: "MODEL_CORRUPT" });
    }
  });

  it("cut short anywhere, or longer, is refused", async () => {
    const folder = tinyModel();
    const file = join(folder, "model.safetensors");
    const bytes = readFileSync(file);
    for (const length of [0, 7, 8, 100, 4096, bytes.length - 1]) {
      writeFileSync(file, bytes.subarray(0, length));
      expect(await refused(folder), `${length} bytes`).toMatchObject({ code: "MODEL_CORRUPT" });
    }
    writeFileSync(file, Buffer.concat([bytes, Buffer.from("x")]));
    expect(await refused(folder)).toMatchObject({ message: expect.stringContaining("appended") });
  });
});

describe("the header of model.safetensors", () => {
  const entry = (begin: number, end: number, shape = [(end - begin) / 4], dtype = "F32") => ({
    dtype,
    shape,
    data_offsets: [begin, end],
  });
  for (const [title, header, dataBytes] of [
    ["an overlap", { a: entry(0, 8), b: entry(4, 12) }, 12],
    ["a hole", { a: entry(0, 4), b: entry(8, 12) }, 12],
    ["an end before its start", { a: entry(4, 0) }, 4],
    ["a shape that does not fill its bytes", { a: entry(0, 8, [3]) }, 8],
    ["a product beyond 2^53", { a: entry(0, 8, [2 ** 40, 2 ** 40]) }, 8],
    ["a negative size", { a: entry(0, 4, [-1]) }, 4],
    ["an unknown dtype", { a: entry(0, 4, [1], "F31") }, 4],
    ["no offsets", { a: { dtype: "F32", shape: [1] } }, 4],
    ["a list for a root", [], 0],
  ] as const) {
    it(`with ${title} is refused`, async () => {
      const folder = tinyModel();
      const json = Buffer.from(JSON.stringify(header));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(json.length));
      writeFileSync(
        join(folder, "model.safetensors"),
        Buffer.concat([length, json, Buffer.alloc(dataBytes)]),
      );
      expect(await refused(folder)).toMatchObject({
        code: "MODEL_CORRUPT",
        message: expect.stringContaining("not a valid safetensors file"),
      });
    });
  }

  it("that would be longer than the format allows is refused unread", async () => {
    const folder = tinyModel();
    const bytes = Buffer.alloc(64);
    bytes.writeBigUInt64LE(2n ** 63n);
    writeFileSync(join(folder, "model.safetensors"), bytes);
    expect(await refused(folder)).toMatchObject({ code: "MODEL_CORRUPT" });
  });
});

describe("a fingerprint", () => {
  it("is the SHA-256 of weights and tokenizer", async () => {
    const [a, b] = [await openModelFolder(tinyModel()), await openModelFolder(tinyModel({ seed: 2 }))];
    const [first, other] = [await fingerprint(a), await fingerprint(b)];
    expect(first.tokenizer).toBe(other.tokenizer);
    expect(first.weights).not.toBe(other.weights);
    expect(first.weights).toMatch(/^[0-9a-f]{64}$/);
    const weights = { ...a, weightsPath: temporary.path("abc") };
    writeFileSync(weights.weightsPath, "abc");
    // FIPS 180-2, appendix B.1.
    expect((await fingerprint(weights)).weights).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
  });
});
